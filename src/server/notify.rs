//! Tells systemd how this process is (`sd_notify(3)`): one datagram to the socket that `NOTIFY_SOCKET` names. Without
//! systemd nothing is said.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long a word may wait for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It serves; also after a reload.
    Ready,
    /// It reads its configuration anew.
    Reloading,
    /// It is about to end.
    Stopping,
    /// Another process has taken over.
    MainPid(u32),
    /// It is alive.
    Alive,
}

impl State {
    fn text(self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Reloading => {
                let now = clock_gettime(ClockId::Monotonic);
                let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
                format!("RELOADING=1\nMONOTONIC_USEC={micros}")
            }
            Self::Stopping => "STOPPING=1".to_owned(),
            Self::MainPid(pid) => format!("MAINPID={pid}"),
            Self::Alive => "WATCHDOG=1".to_owned(),
        }
    }
}

/// Says it. That nobody listens is no failure of ours, so it is only noted.
pub(super) fn tell(state: State) {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
        && let Err(error) = send(&socket, &state.text())
    {
        tracing::debug!(%error, ?state, "systemd could not be told");
    }
}

fn send(socket: &OsString, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let ours = UnixDatagram::unbound()?;
    // Whoever does not read must not hold up what this process has to do.
    ours.set_write_timeout(Some(PATIENCE))?;
    ours.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// How often systemd wants to hear that this process is alive (`WatchdogSec=`); half of what it waits.
pub(super) fn watchdog() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let every = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0)?;
    Some(Duration::from_micros(every / 2).max(Duration::from_millis(1)))
}
