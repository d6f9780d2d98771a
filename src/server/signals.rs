//! The signals that mean "stop".

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for SIGTERM or SIGINT. SIGHUP is not a reason to stop; reloading is not built yet, and it says so.
pub(super) async fn wait_for_stop() {
    let (Ok(mut term), Ok(mut interrupt), Ok(mut hangup)) =
        (open(SignalKind::terminate()), open(SignalKind::interrupt()), open(SignalKind::hangup()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => {
                tracing::warn!("SIGHUP: this version reads its configuration only at the start; restart it");
            }
        }
    }
}

fn open(kind: SignalKind) -> std::io::Result<Signal> {
    signal(kind).inspect_err(|error| tracing::error!(%error, "signals cannot be watched"))
}
