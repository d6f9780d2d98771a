//! The way from one process to the next: listening sockets are handed over, and each side says how far it is.
//!
//! The old process starts the new one with one end of a pair of Unix sockets as its standard input, and sends all
//! listening sockets along it (`SCM_RIGHTS`). Standard input, because a process may use it without unsafe code, which any
//! other inherited number needs. Then the new one says either of:
//!
//! - `READY`: it serves already. The old one stops to listen and drains.
//! - `WAITS`: all is well but for the store, which one process alone can have. The old one drains, closes the store and
//!   says `GO`; connections wait in the sockets' queues meanwhile. `READY` follows.
//!
//! If the line ends instead, the other process has ended.

use std::env;
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use tokio::sync::mpsc;

use super::sockets::Sockets;

/// Says to a new process that its standard input is the line to the old one.
const MARK: &str = "TOLLGATE_TAKES_OVER";
/// What systemd told the old process alone.
const NOT_INHERITED: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"];
/// Sockets in one message; the system takes 253.
const MOST_SOCKETS: usize = 250;
const LONGEST_MESSAGE: usize = 32 << 10;

const READY: &[u8] = b"READY";
const WAITS: &[u8] = b"WAITS";
const GO: &[u8] = b"GO";

/// What the new process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It serves.
    Ready,
    /// It waits for the store.
    Waits,
    /// Nothing more: it has ended.
    Gone,
}

/// How this process was started, to start the next one alike.
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The name it was called by, so that a new file, or a link to a new one, under this name is what runs next.
    pub(super) fn this() -> Self {
        let mut arguments = env::args_os();
        let called = arguments.next().map(PathBuf::from).unwrap_or_default();
        let by_path = called.components().count() > 1;
        let path = if by_path {
            env::current_dir().map(|here| here.join(&called)).unwrap_or(called)
        } else {
            // Found along PATH, which may be another one by then.
            env::current_exe().unwrap_or(called)
        };
        Self { path, arguments: arguments.collect() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The process after this one.
pub(super) struct Successor {
    child: Child,
    line: OwnedFd,
    words: mpsc::UnboundedReceiver<Word>,
}

impl Successor {
    /// Starts it and hands it the sockets.
    pub(super) fn start(program: &Program, sockets: &Sockets) -> io::Result<Self> {
        let (line, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        send_sockets(&line, sockets)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env(MARK, "1").stdin(Stdio::from(theirs));
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        let mut child = command.spawn()?;
        // Its end of the line is its own now; ours ends when it does.
        drop(command);
        let (told, words) = mpsc::unbounded_channel();
        let heard = line.try_clone().and_then(|line| {
            let name = "hand-over".to_owned();
            std::thread::Builder::new().name(name).spawn(move || hear(&line, &told))
        });
        if let Err(error) = heard {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(Self { child, line, words })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says next.
    pub(super) async fn word(&mut self) -> Word {
        self.words.recv().await.unwrap_or(Word::Gone)
    }

    /// The store is free.
    pub(super) fn go(&self) -> io::Result<()> {
        send(&self.line, GO, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// It is not to take over after all. How it ended, for the log.
    pub(super) fn dismiss(mut self) -> String {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

/// Passes on what comes along the line, until it ends.
fn hear(line: &OwnedFd, told: &mpsc::UnboundedSender<Word>) {
    loop {
        let word = match receive(line).as_deref() {
            Ok(READY) => Word::Ready,
            Ok(WAITS) => Word::Waits,
            _ => Word::Gone,
        };
        if told.send(word).is_err() || word == Word::Gone {
            return;
        }
    }
}

fn receive(line: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = [0_u8; 64];
    loop {
        match recv(line, &mut buffer, RecvFlags::empty()) {
            Ok((_, length)) => return Ok(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn send_sockets(line: &OwnedFd, sockets: &Sockets) -> io::Result<()> {
    let names: Vec<String> = sockets.iter().map(|kept| kept.named.to_string()).collect();
    let text = names.join("\n");
    if names.len() > MOST_SOCKETS || text.len() > LONGEST_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there are too many listeners to hand over"));
    }
    let files: Vec<BorrowedFd<'_>> = sockets.iter().map(|kept| kept.socket.as_fd()).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(files.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&files));
    }
    // An empty message would look like the line's end.
    let text = format!("{text}\n");
    sendmsg(line, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The process before this one.
pub(super) struct Predecessor {
    line: OwnedFd,
}

impl Predecessor {
    /// The process that started this one to be succeeded, and the sockets it handed over.
    pub(super) fn find() -> io::Result<Option<(Self, Sockets)>> {
        if env::var_os(MARK).is_none() {
            return Ok(None);
        }
        let line = io::stdin().as_fd().try_clone_to_owned()?;
        let sockets = receive_sockets(&line)?;
        Ok(Some((Self { line }, sockets)))
    }

    /// This process serves. That the old one has ended is no obstacle.
    pub(super) fn say_ready(&self) {
        let _ = send(&self.line, READY, SendFlags::NOSIGNAL);
    }

    /// Whether the old process has ended.
    pub(super) fn is_gone(&self) -> bool {
        let mut nothing = [0_u8; 1];
        !matches!(
            recv(&self.line, &mut nothing, RecvFlags::DONTWAIT | RecvFlags::PEEK),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }

    /// Waits for the store to be free: the old process says so, or has ended.
    pub(super) fn wait_for_store(&self) {
        if send(&self.line, WAITS, SendFlags::NOSIGNAL).is_ok() {
            let _ = receive(&self.line);
        }
    }
}

fn receive_sockets(line: &OwnedFd) -> io::Result<Sockets> {
    let mut text = vec![0; LONGEST_MESSAGE + 1];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let length = recvmsg(line, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    let names = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    let names: Vec<SocketAddr> = names.lines().filter_map(|name| name.parse().ok()).collect();
    if names.len() != files.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what was handed over does not fit together"));
    }
    Ok(Sockets::given(names.into_iter().zip(files.into_iter().map(TcpListener::from))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_along_the_line_with_their_names() {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut sockets = Sockets::default();
        let ports: Vec<u16> =
            (0..3).map(|_| sockets.listen("requests", any).unwrap().local_addr().unwrap().port()).collect();
        send_sockets(&here, &sockets).unwrap();
        let mut received = receive_sockets(&there).unwrap();
        // Several have the same name where ports are the system's choice: they keep their order.
        let theirs: Vec<u16> =
            (0..3).map(|_| received.take(any).unwrap().local_addr().unwrap().port()).collect();
        assert_eq!(theirs, ports);
        assert!(received.take(any).is_none());
        received.give_back();
        assert_eq!(received.take(any).unwrap().local_addr().unwrap().port(), ports[0]);
    }

    #[test]
    fn words_arrive_and_the_end_of_the_line_is_the_last() {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let predecessor = Predecessor { line: there };
        let (told, mut words) = mpsc::unbounded_channel();
        send(&here, GO, SendFlags::NOSIGNAL).unwrap();
        predecessor.wait_for_store();
        predecessor.say_ready();
        assert!(!predecessor.is_gone());
        drop(predecessor);
        hear(&here, &told);
        let mut heard = || words.try_recv().unwrap();
        assert_eq!([heard(), heard(), heard()], [Word::Waits, Word::Ready, Word::Gone]);
    }
}
