//! Hints after errors of the library: the option of the command that changes the limit.

use anyhow::{Error, anyhow};
use millpond::ComponentError;
use millpond_server::LimitRateTooLow;
use millpond_server::admin::TokenRequired;

/// Adds the option to raise if a memory limit is too low.
pub(crate) fn of_component(error: ComponentError) -> Error {
    match &error {
        ComponentError::ExceedsLimits { needs_bytes, .. } => {
            let least = needs_bytes.div_ceil(1024);
            anyhow!("{error}; raise --request-memory-limit to {least}KiB at least")
        }
        ComponentError::InsufficientMemory(insufficient) => {
            let least = insufficient.required_bytes.div_ceil(1024 * 1024);
            anyhow!("{error}; raise --memory-limit to {least}MiB at least")
        }
        _ => error.into(),
    }
}

/// Adds the options for a token, or for another address.
pub(crate) fn of_token(error: TokenRequired) -> Error {
    anyhow!(
        "{error}; set --admin-token-file or MILLPOND_ADMIN_TOKEN, or --admin to an address of this machine only such as \
         127.0.0.1:8079"
    )
}

/// Adds the options to change if the limit rate is too low.
pub(crate) fn of_limit_rate(error: LimitRateTooLow) -> Error {
    match &error {
        LimitRateTooLow::Rate { minimum, .. } => {
            anyhow!("{error}; raise --limit-rate to {minimum} at least or lower --min-send-rate")
        }
        LimitRateTooLow::SendTimeout { minimum, .. } => {
            anyhow!("{error}; raise --send-timeout to {minimum:?} at least")
        }
        _ => error.into(),
    }
}
