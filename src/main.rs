//! The commands. Reads the settings, starts what was asked for, and ends with a clear sentence if it cannot.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::{Failure, generate, keys, ledger, models, serve, usage};
use imagegate::config::Config;

/// One gateway for image generation.
#[derive(Debug, Parser)]
#[command(
    name = "imagegate",
    version,
    about,
    after_help = "Settings come from the environment, `.env` and `imagegate.toml`; `.env.example` lists them all."
)]
struct Cli {
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
    /// Create, list and revoke keys in the configured database
    Keys {
        #[command(subcommand)]
        action: keys::Action,
    },
    /// Check the books, and see what money is set aside
    Ledger {
        #[command(subcommand)]
        action: ledger::Action,
    },
    /// Print what was used and what it cost
    Usage(usage::Arguments),
    /// Make one image through a running gateway
    Generate(generate::Arguments),
}

fn main() -> ExitCode {
    // Every client and server here speaks TLS with one provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Cli::parse().command.unwrap_or(Command::Serve)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("imagegate: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let config = Config::load()?;
    match command {
        Command::Serve => serve::serve(config),
        Command::Sandbox => serve::sandbox(&config),
        Command::Migrate => commands::block_on(serve::migrate(&config)),
        Command::Openapi => models::print_document(&config),
        Command::Models { action } => models::run(&config, action),
        Command::Keys { action } => commands::block_on(keys::run(&config, action)),
        Command::Ledger { action } => commands::block_on(ledger::run(&config, action)),
        Command::Usage(arguments) => commands::block_on(usage::run(&config, &arguments)),
        Command::Generate(arguments) => commands::block_on(generate::run(&config, &arguments)),
    }
}
