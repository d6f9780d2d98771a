//! The connection: made when it is first needed, shared by all callers, thrown away when it fails, made anew by the
//! next call. No call takes longer than the timeout.
//!
//! The Redis crate's own connection manager is not used: an error at the handshake that is not an I/O error ("max
//! number of clients reached") would stay its answer for ever, and a connection that only times out, as one to a
//! machine that is gone does, would be kept.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, ProtocolVersion, RedisError, ServerErrorKind, Value,
};

use super::super::StoreError;
use super::scripts::Script;
use super::topology::slots::{Redirect, redirect};
use super::topology::{Place, Way};
use crate::policy::token::mask_tokens;

/// How often a call follows where servers send it.
const HOPS: u32 = 5;
/// How long a call waits for keys that are on their way between nodes, before it asks again.
const MOMENT: Duration = Duration::from_millis(5);

type Answers = Vec<Result<Value, RedisError>>;

/// How many copies of a call may come to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    /// The one that was answered.
    One,
    /// Others too, earlier or later: it was sent again when a connection broke.
    More,
}

/// The one connection to a server, if there is one, and which one it is.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<MultiplexedConnection>,
}

/// A server, and the connection to it.
struct Seat {
    /// `None`: the one there is.
    place: Option<Place>,
    current: Mutex<Current>,
    connecting: tokio::sync::Mutex<()>,
}

/// The way to the servers, and one connection to each that is needed.
pub(super) struct Link {
    way: Arc<Way>,
    config: AsyncConnectionConfig,
    timeout: Duration,
    seats: Mutex<HashMap<Option<Place>, Arc<Seat>>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// May a step be made a second time when its answer was lost?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It may: twice is as good as once.
    Yes,
    /// It may not.
    No,
}

/// Why a call brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server, or the way to it.
    Redis(RedisError),
    /// Time is over.
    Timeout(Duration),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl Failure {
    /// As a store's error; `key` is named if something of another type is kept there.
    pub(super) fn into_store_error(self, key: &str) -> StoreError {
        match self {
            Self::Redis(error) if error.code() == Some("WRONGTYPE") => StoreError::Unreadable {
                key: key.to_owned(),
                why: "it holds something of another type".to_owned(),
            },
            Self::Redis(error) => StoreError::Unavailable(sentence(&error)),
            Self::Timeout(time) => StoreError::Unavailable(format!("Redis did not answer in {time:?}")),
        }
    }
}

/// What went wrong, in the server's words, without anything that looks like a token.
fn sentence(error: &RedisError) -> String {
    let mut text = format!("Redis: {error}").into_bytes();
    mask_tokens(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

impl Seat {
    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        let current = self.current.lock();
        current.connection.clone().map(|connection| (current.number, connection))
    }

    /// Throws the connection away, unless there is a newer one already.
    fn discard(&self, number: u64) {
        let mut current = self.current.lock();
        if current.number == number {
            current.connection = None;
        }
    }
}

/// A call while it is made.
struct Call<'c> {
    slot: Option<u16>,
    commands: &'c Pipeline,
    again: Again,
    /// The connection used last.
    used: &'c Mutex<Option<(Arc<Seat>, u64)>>,
    /// Set once it was sent and its answer was lost.
    lost: &'c AtomicBool,
}

/// How one try went.
enum Tried {
    /// These are the answers.
    Answered(Answers),
    /// Another try is worth it.
    Lost(RedisError),
    /// It is to be made again, elsewhere or in a moment.
    Again(Answers),
}

impl Link {
    /// A link that is not connected yet.
    pub(super) fn new(way: Arc<Way>, timeout: Duration) -> Self {
        // The whole call has the timeout; the connection's own would leave it none to speak of the failure.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
        Self { way, config, timeout, seats: Mutex::default() }
    }

    fn seat(&self, place: Option<Place>) -> Arc<Seat> {
        let mut seats = self.seats.lock();
        let seat =
            |place| Seat { place, current: Mutex::default(), connecting: tokio::sync::Mutex::default() };
        seats.entry(place.clone()).or_insert_with(|| Arc::new(seat(place))).clone()
    }

    async fn connection(&self, seat: &Seat) -> Result<(u64, MultiplexedConnection), RedisError> {
        if let Some(current) = seat.current() {
            return Ok(current);
        }
        // One at a time: those who waited find the connection made.
        let _turn = seat.connecting.lock().await;
        if let Some(current) = seat.current() {
            return Ok(current);
        }
        let connection = self.way.connect(seat.place.as_ref(), ProtocolVersion::RESP2, &self.config).await?;
        let mut current = seat.current.lock();
        current.number += 1;
        current.connection = Some(connection.clone());
        Ok((current.number, connection))
    }

    /// Sends commands, gets all their answers. In a cluster they all belong to one slot. Over a connection that turns out
    /// to be broken it tries once more, if it may.
    pub(super) async fn send(&self, commands: &Pipeline, again: Again) -> Result<Answers, Failure> {
        Ok(self.send_to(self.way.slot_of(commands), commands, again).await?.0)
    }

    async fn send_to(
        &self,
        slot: Option<u16>,
        commands: &Pipeline,
        again: Again,
    ) -> Result<(Answers, Copies), Failure> {
        let (used, lost) = (Mutex::new(None), AtomicBool::new(false));
        let call = Call { slot, commands, again, used: &used, lost: &lost };
        if let Ok(answers) = tokio::time::timeout(self.timeout, self.carry_out(&call)).await {
            let copies = if lost.load(Ordering::Relaxed) { Copies::More } else { Copies::One };
            return Ok((answers?, copies));
        }
        // It may lead to a machine that is gone; the next call tries another.
        if let Some((seat, number)) = used.lock().take() {
            seat.discard(number);
        }
        self.way.forget();
        Err(Failure::Timeout(self.timeout))
    }

    async fn carry_out(&self, call: &Call<'_>) -> Result<Answers, RedisError> {
        let mut tries = if call.again == Again::Yes { 2 } else { 1 };
        let mut hops = HOPS;
        loop {
            match self.attempt(call).await? {
                Tried::Answered(answers) => return Ok(answers),
                Tried::Lost(error) => {
                    tries -= 1;
                    if tries == 0 {
                        return Err(error);
                    }
                }
                Tried::Again(answers) => {
                    // Where some commands were carried out, all are sent again: twice must be as good as once.
                    let may = call.again == Again::Yes || answers.iter().all(Result::is_err);
                    if hops == 0 || !may {
                        return Ok(answers);
                    }
                    hops -= 1;
                }
            }
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Tried, RedisError> {
        let seat = self.seat(self.way.place(call.slot).await?);
        let (number, mut connection) = match self.take(call, &seat).await {
            Ok(connected) => connected,
            Err(error) if self.way.forget() => return Ok(Tried::Lost(error)),
            Err(error) => return Err(error),
        };
        let answers = match call.commands.query_async::<Answers>(&mut connection).await {
            Ok(answers) => answers,
            Err(error) => return self.lost(call, &seat, number, error),
        };
        let redirected = |answers: &Answers| {
            let mut errors = answers.iter().filter_map(|answer| answer.as_ref().err());
            errors.find_map(|error| redirect(error, seat.place.as_ref()))
        };
        let answers = match redirected(&answers) {
            Some(Redirect::Ask(place)) => match self.ask_there(call, place, answers).await? {
                Tried::Answered(answers) => answers,
                other => return Ok(other),
            },
            _ => answers,
        };
        match redirected(&answers) {
            Some(Redirect::Moved(slot, place)) => self.way.learn(slot, place),
            Some(Redirect::Ask(_) | Redirect::Later) => tokio::time::sleep(MOMENT).await,
            None => {
                if answers.iter().any(|answer| answer.as_ref().is_err_and(is_of_replica)) {
                    seat.discard(number);
                    self.way.forget();
                }
                return Ok(Tried::Answered(answers));
            }
        }
        Ok(Tried::Again(answers))
    }

    async fn take(
        &self,
        call: &Call<'_>,
        seat: &Arc<Seat>,
    ) -> Result<(u64, MultiplexedConnection), RedisError> {
        let (number, connection) = self.connection(seat).await?;
        *call.used.lock() = Some((seat.clone(), number));
        Ok((number, connection))
    }

    fn lost(
        &self,
        call: &Call<'_>,
        seat: &Seat,
        number: u64,
        error: RedisError,
    ) -> Result<Tried, RedisError> {
        call.lost.store(true, Ordering::Relaxed);
        if !is_of_connection(&error) {
            return Err(error);
        }
        seat.discard(number);
        self.way.forget();
        Ok(Tried::Lost(error))
    }

    /// Sends what was not carried out, and only that, to the node that is about to get the slot: the other keys are not there
    /// yet, and would read as if they were nowhere. Each command needs a word before it.
    async fn ask_there(
        &self,
        call: &Call<'_>,
        place: Place,
        mut answers: Answers,
    ) -> Result<Tried, RedisError> {
        let seat = self.seat(Some(place));
        let (number, mut connection) = self.take(call, &seat).await?;
        let mut pipeline = Pipeline::with_capacity(answers.len() * 2);
        let mut sent = Vec::with_capacity(answers.len());
        for (at, (command, answer)) in call.commands.cmd_iter().zip(&answers).enumerate() {
            // Waiting for replicas is for what was written over the same connection.
            let waits = command.args_iter().next() == Some(redis::Arg::Simple(b"WAIT"));
            if waits || answer.as_ref().is_err_and(|error| error.code() == Some("ASK")) {
                pipeline.cmd("ASKING").add_command(command.clone());
                sent.push(at);
            }
        }
        pipeline.ignore_errors();
        match pipeline.query_async::<Answers>(&mut connection).await {
            Ok(new) => {
                for (at, new) in sent.into_iter().zip(new.into_iter().skip(1).step_by(2)) {
                    if let Some(answer) = answers.get_mut(at) {
                        *answer = new;
                    }
                }
                Ok(Tried::Answered(answers))
            }
            Err(error) => self.lost(call, &seat, number, error),
        }
    }

    /// Sends one command.
    pub(super) async fn ask(&self, command: Cmd, again: Again) -> Result<Value, Failure> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command).ignore_errors();
        let answer = self.send(&pipeline, again).await?.pop();
        Ok(answer.unwrap_or(Ok(Value::Nil))?)
    }

    /// Runs a script some times, each call wherever its keys are: those of one place in one pipeline, all places at once.
    pub(super) async fn run_anywhere(
        &self,
        script: &Script,
        calls: Vec<Cmd>,
        again: Again,
    ) -> Result<Vec<Value>, Failure> {
        let mut places: HashMap<Option<u16>, (Vec<usize>, Vec<Cmd>)> = HashMap::new();
        for (at, call) in calls.into_iter().enumerate() {
            let mut alone = Pipeline::with_capacity(1);
            alone.add_command(call.clone());
            let (order, calls) = places.entry(self.way.slot_of(&alone)).or_default();
            order.push(at);
            calls.push(call);
        }
        let (orders, calls): (Vec<_>, Vec<_>) = places.into_values().unzip();
        let answers = all(calls.into_iter().map(|calls| self.run(script, calls, again)).collect()).await;
        let mut ordered = BTreeMap::new();
        for (order, answers) in orders.into_iter().zip(answers) {
            ordered.extend(order.into_iter().zip(answers?));
        }
        Ok(ordered.into_values().collect())
    }

    /// Runs a script some times, and makes it known to the server first where it is not. In a cluster all calls belong to
    /// one slot.
    pub(super) async fn run(
        &self,
        script: &Script,
        calls: Vec<Cmd>,
        again: Again,
    ) -> Result<Vec<Value>, Failure> {
        Ok(self.run_and_count(script, calls, again).await?.0)
    }

    /// The same; besides, whether the server may have more copies of the calls than the one it answered.
    pub(super) async fn run_and_count(
        &self,
        script: &Script,
        calls: Vec<Cmd>,
        again: Again,
    ) -> Result<(Vec<Value>, Copies), Failure> {
        let mut pipeline = Pipeline::new();
        for call in calls {
            pipeline.add_command(call);
        }
        pipeline.ignore_errors();
        let slot = self.way.slot_of(&pipeline);
        let (answers, copies) = self.send_to(slot, &pipeline, again).await?;
        if !answers.iter().any(|answer| answer.as_ref().is_err_and(is_of_unknown_script)) {
            return Ok((answers.into_iter().collect::<Result<_, _>>()?, copies));
        }
        // A server that does not know the script ran none of the calls.
        let mut load = Pipeline::new();
        load.add_command(script.load()).ignore_errors();
        for answer in self.send_to(slot, &load, Again::Yes).await?.0 {
            answer?;
        }
        let (answers, more) = self.send_to(slot, &pipeline, again).await?;
        let copies = if more == Copies::One { copies } else { more };
        Ok((answers.into_iter().collect::<Result<_, _>>()?, copies))
    }
}

/// Waits for all of them, side by side.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut left = false;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(ready) => *output = Some(ready),
                Poll::Pending => left = true,
            }
        }
        if left { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

fn is_of_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}

fn is_of_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// After a failover the name may lead to the new primary.
fn is_of_replica(error: &RedisError) -> bool {
    use ServerErrorKind::{ClusterDown, MasterDown, ReadOnly};
    matches!(error.kind(), ErrorKind::Server(ReadOnly | MasterDown | ClusterDown))
}
