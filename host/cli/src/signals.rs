//! Signals of the server.

use crate::log::LogReopener;
use std::io;
use tokio_util::sync::CancellationToken;

/// Requests of signals.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Cancelled by the first SIGTERM, SIGINT or SIGQUIT. In-flight responses finish.
    pub(crate) stop: CancellationToken,
    /// Cancelled by the second one. In-flight responses are cut.
    pub(crate) stop_at_once: CancellationToken,
    /// SIGHUP: reload the settings.
    pub(crate) reload: SignalStream,
    /// SIGUSR2: write a report.
    pub(crate) report: SignalStream,
}

impl Signals {
    /// Handles the signals from now on, until the current runtime ends. SIGUSR1 opens the file of the log again.
    ///
    /// # Errors
    /// The system cannot handle signals.
    pub(crate) fn take(log: LogReopener) -> io::Result<Self> {
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
                log.reopen();
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

    /// Stream of one signal.
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

        /// Waits for the signal. Signals that arrive meanwhile count as one.
        pub(crate) async fn next(&mut self) {
            self.0.recv().await;
        }
    }

    /// Signals that end the process. SIGQUIT is one of them, because containers for nginx send it (`STOPSIGNAL`).
    /// SIGABRT dumps core.
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

    /// A signal that this system does not have.
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
            // Without Ctrl-C, wait forever.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
