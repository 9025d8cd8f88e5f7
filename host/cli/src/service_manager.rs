//! State of the service, for a service manager that asks for it (sd_notify(3), `Type=notify-reload` of systemd).

/// The program is ready, or has reloaded its settings.
pub(crate) fn ready() {
    #[cfg(target_os = "linux")]
    linux::notify(&[sd_notify::NotifyState::Ready]);
}

/// The program reloads its settings. [`ready`] follows.
pub(crate) fn reloading() {
    #[cfg(target_os = "linux")]
    match sd_notify::NotifyState::monotonic_usec_now() {
        Ok(now) => linux::notify(&[sd_notify::NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
    }
}

/// The program stops, and lets its responses finish.
pub(crate) fn stopping() {
    #[cfg(target_os = "linux")]
    linux::notify(&[sd_notify::NotifyState::Stopping]);
}

/// Whether the service manager listens on an abstract UNIX domain socket, which has no file.
pub(crate) fn is_abstract() -> bool {
    let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    socket.as_encoded_bytes().starts_with(b"@")
}

#[cfg(target_os = "linux")]
mod linux {
    use sd_notify::NotifyState;

    /// Without a service manager that asks (`NOTIFY_SOCKET`), this does nothing.
    pub(super) fn notify(state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            tracing::debug!(%error, "cannot notify the service manager");
        }
    }
}
