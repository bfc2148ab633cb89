//! The log: one subscriber for the process. What is logged never holds a key, a prompt or an image.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogSettings;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `IMAGEGATE_LOG` cannot be read.
    #[error("IMAGEGATE_LOG=`{0}` is not allowed: a filter such as `info` or `imagegate=debug,warn`")]
    Filter(String),
    /// Another subscriber was there first.
    #[error("the log cannot start: {0}")]
    Start(#[from] TryInitError),
}

/// Starts the log; it goes to standard error, so that standard output stays free for what a command prints.
pub fn start(settings: &LogSettings) -> Result<(), TelemetryError> {
    // How many threads listen where is not worth two lines at every start; the operator's filter may say otherwise.
    let filter = EnvFilter::try_new(format!("actix_server=warn,{}", settings.filter))
        .map_err(|_| TelemetryError::Filter(settings.filter.clone()))?;
    let registry = tracing_subscriber::registry().with(filter);
    if settings.json {
        registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()?;
    } else {
        registry
            .with(
                fmt::layer().with_target(false).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr),
            )
            .try_init()?;
    }
    Ok(())
}
