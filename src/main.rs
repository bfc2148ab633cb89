//! The commands. Reads the settings, starts what was asked for, and ends with a clear sentence if it cannot.

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use commands::{
    Failure, Output, aliases, audit, costs, credits, erase, generate, generations, keys, ledger, limits, models,
    projects, reconcile, retention, serve, usage,
};
use imagegate::config::Config;

/// Measured against the system's: a tenth less processor time and a fifth less memory (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One gateway for image generation.
#[derive(Debug, Parser)]
#[command(
    name = "imagegate",
    version,
    about,
    after_help = "Settings come from the environment, `.env` and `imagegate.toml`; `.env.example` lists them all."
)]
struct Cli {
    /// Answer with JSON, where a command prints a table or a sentence
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Serve,
    /// Run only the built-in stand-in for fal
    Sandbox,
    /// Apply the database's migrations and exit
    Migrate,
    /// Print the OpenAPI document
    Openapi,
    /// List the catalogue, or work on model files
    Models {
        #[command(subcommand)]
        action: Option<models::Action>,
    },
    /// Make, list, change and archive projects
    Projects {
        #[command(subcommand)]
        action: projects::Action,
    },
    /// Make, list, change, rotate and revoke keys
    Keys {
        #[command(subcommand)]
        action: keys::Action,
    },
    /// Give models names of your own, with values of their parameters
    Aliases {
        #[command(subcommand)]
        action: aliases::Action,
    },
    /// Show and set what may be spent and asked for
    Limits {
        #[command(subcommand)]
        action: limits::Action,
    },
    /// Check the books, and see what money is set aside
    Ledger {
        #[command(subcommand)]
        action: ledger::Action,
    },
    /// Print what was used and what it cost
    Usage(usage::Arguments),
    /// Print what the projects pay, as the ledger has it
    Costs(costs::Arguments),
    /// List generations, or show one with its whole history
    Generations {
        #[command(subcommand)]
        action: generations::Action,
    },
    /// Book top-ups and corrections, and show balances
    Credits {
        #[command(subcommand)]
        action: credits::Action,
    },
    /// Erase prompts, parameters and images of a generation or of a whole project
    Erase {
        #[command(subcommand)]
        action: erase::Action,
    },
    /// Print who changed what, when and from where
    Audit(audit::Arguments),
    /// Compare our cost with fal's billing events
    Reconcile(reconcile::Arguments),
    /// Drop months of generations that nobody may ask for any more
    Retention {
        #[command(subcommand)]
        action: retention::Action,
    },
    /// Print a script that completes the commands in a shell
    #[command(after_help = "Examples:
  imagegate completions bash > /etc/bash_completion.d/imagegate
  imagegate completions zsh > \"${fpath[1]}/_imagegate\"
  imagegate completions fish > ~/.config/fish/completions/imagegate.fish")]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Make images through a running gateway
    Generate(generate::Arguments),
}

fn main() -> ExitCode {
    // Every client and server here speaks TLS with one provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let output = if cli.json { Output::Json } else { Output::Text };
    match run(cli.command.unwrap_or(Command::Serve), output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("imagegate: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, output: Output) -> Result<(), Failure> {
    if let Command::Completions { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "imagegate", &mut script);
        return commands::print(&String::from_utf8(script)?);
    }
    let config = Config::load()?;
    if !matches!(command, Command::Generate(_)) {
        // Whatever the gateway writes (database, journal, images, keys) is its user's alone.
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    }
    match command {
        Command::Serve => serve::serve(config),
        Command::Sandbox => serve::sandbox(&config),
        Command::Migrate => commands::block_on(serve::migrate(&config, output)),
        Command::Openapi => models::print_document(&config),
        Command::Models { action } => models::run(&config, action, output),
        Command::Projects { action } => commands::block_on(projects::run(&config, action, output)),
        Command::Keys { action } => commands::block_on(keys::run(&config, action, output)),
        Command::Aliases { action } => commands::block_on(aliases::run(&config, action, output)),
        Command::Limits { action } => commands::block_on(limits::run(&config, action, output)),
        Command::Ledger { action } => commands::block_on(ledger::run(&config, action, output)),
        Command::Usage(arguments) => commands::block_on(usage::run(&config, &arguments, output)),
        Command::Costs(arguments) => commands::block_on(costs::run(&config, &arguments, output)),
        Command::Generations { action } => commands::block_on(generations::run(&config, action, output)),
        Command::Credits { action } => commands::block_on(credits::run(&config, action, output)),
        Command::Erase { action } => commands::block_on(erase::run(&config, action, output)),
        Command::Audit(arguments) => commands::block_on(audit::run(&config, &arguments, output)),
        Command::Reconcile(arguments) => commands::block_on(reconcile::run(&config, &arguments, output)),
        Command::Retention { action } => commands::block_on(retention::run(&config, action, output)),
        // Answered above: it needs no settings.
        Command::Completions { .. } => Ok(()),
        Command::Generate(arguments) => commands::block_on(generate::run(&config, &arguments, output)),
    }
}
