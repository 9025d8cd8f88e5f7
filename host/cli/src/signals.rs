//! The signals that the server takes: none of them cuts an answer short that could have been let end.

use std::io;
use tokio_util::sync::CancellationToken;

/// What signals ask for.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Is cancelled by the first SIGTERM, Ctrl-C or SIGQUIT: running answers are let end.
    pub(crate) stop: CancellationToken,
    /// Is cancelled by the second one: nothing is waited for.
    pub(crate) stop_at_once: CancellationToken,
    /// SIGHUP: what can be read again is to be.
    pub(crate) reload: SignalStream,
    /// SIGUSR2: a report is to be written.
    pub(crate) report: SignalStream,
}

impl Signals {
    /// Takes the signals from here on, on the current runtime, for as long as that runs.
    ///
    /// # Errors
    /// When the system has no way to wait for signals.
    pub(crate) fn take() -> io::Result<Self> {
        let (stop, stop_at_once) = (CancellationToken::new(), CancellationToken::new());
        let mut shutdown = ShutdownSignals::new()?;
        let tokens = (stop.clone(), stop_at_once.clone());
        tokio::spawn(async move {
            shutdown.next().await;
            tracing::info!("shutting down: waiting for in-flight responses");
            tokens.0.cancel();
            shutdown.next().await;
            tracing::warn!("shutting down now: in-flight responses are cut");
            tokens.1.cancel();
        });
        let mut reopen = SignalStream::reopen()?;
        tokio::spawn(async move {
            loop {
                reopen.next().await;
                tracing::info!(
                    "SIGUSR1 ignored: the log goes to standard error, so there is no file to reopen"
                );
            }
        });
        Ok(Signals {
            stop,
            stop_at_once,
            reload: SignalStream::reload()?,
            report: SignalStream::report()?,
        })
    }
}

use platform::ShutdownSignals;
pub(crate) use platform::SignalStream;

#[cfg(unix)]
mod platform {
    use std::io;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// A signal that may come any number of times.
    #[derive(Debug)]
    pub(crate) struct SignalStream(Signal);

    impl SignalStream {
        pub(crate) fn reload() -> io::Result<Self> {
            Ok(SignalStream(signal(SignalKind::hangup())?))
        }

        pub(crate) fn reopen() -> io::Result<Self> {
            Ok(SignalStream(signal(SignalKind::user_defined1())?))
        }

        pub(crate) fn report() -> io::Result<Self> {
            Ok(SignalStream(signal(SignalKind::user_defined2())?))
        }

        /// Waits for the signal. Several that come while nobody waits are one.
        pub(crate) async fn next(&mut self) {
            self.0.recv().await;
        }
    }

    /// The signals that ask the process to end. SIGQUIT is one of them, since a container that was made for nginx sends
    /// it (`STOPSIGNAL`); who wants a core dump has SIGABRT.
    pub(crate) struct ShutdownSignals([Signal; 3]);

    impl ShutdownSignals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(ShutdownSignals([
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ]))
        }

        pub(crate) async fn next(&mut self) {
            let [terminate, interrupt, quit] = &mut self.0;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = quit.recv() => {}
            }
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io;

    /// A signal that there is not on this system.
    #[derive(Debug)]
    pub(crate) struct SignalStream;

    impl SignalStream {
        pub(crate) fn reload() -> io::Result<Self> {
            Ok(SignalStream)
        }

        pub(crate) fn reopen() -> io::Result<Self> {
            Ok(SignalStream)
        }

        pub(crate) fn report() -> io::Result<Self> {
            Ok(SignalStream)
        }

        pub(crate) async fn next(&mut self) {
            std::future::pending().await
        }
    }

    /// Ctrl-C.
    pub(crate) struct ShutdownSignals;

    impl ShutdownSignals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(ShutdownSignals)
        }

        pub(crate) async fn next(&mut self) {
            // Without a Ctrl-C to wait for, there is none to come.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
