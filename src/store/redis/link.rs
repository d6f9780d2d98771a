//! The connection: made when it is first needed, shared by all callers, thrown away when it fails, made anew by the
//! next call. No call takes longer than the timeout.
//!
//! The Redis crate's own connection manager is not used: an error at the handshake that is not an I/O error ("max
//! number of clients reached") would stay its answer for ever, and a connection that only times out, as one to a
//! machine that is gone does, would be kept.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};

use super::super::StoreError;
use super::scripts::Script;
use crate::policy::token::mask_tokens;

/// The one connection, if there is one, and which one it is.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<MultiplexedConnection>,
}

/// The way to the server.
pub(super) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    timeout: Duration,
    current: Mutex<Current>,
    connecting: tokio::sync::Mutex<()>,
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

impl Link {
    /// A link that is not connected yet.
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        // The whole call has the timeout; the connection's own would leave it none to speak of the failure.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
        Self { client, config, timeout, current: Mutex::default(), connecting: tokio::sync::Mutex::default() }
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        let current = self.current.lock();
        current.connection.clone().map(|connection| (current.number, connection))
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        // One at a time: those who waited find the connection made.
        let _turn = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        let mut current = self.current.lock();
        current.number += 1;
        current.connection = Some(connection.clone());
        Ok((current.number, connection))
    }

    /// Throws the connection away, unless there is a newer one already.
    fn discard(&self, number: u64) {
        let mut current = self.current.lock();
        if current.number == number {
            current.connection = None;
        }
    }

    /// Sends commands, gets all their answers. Over a connection that turns out to be broken it tries once more, if
    /// it may.
    pub(super) async fn send(
        &self,
        commands: &Pipeline,
        again: Again,
    ) -> Result<Vec<Result<Value, RedisError>>, Failure> {
        let mut used = None;
        let sending = async {
            let mut tries = if again == Again::Yes { 2 } else { 1 };
            loop {
                tries -= 1;
                let (number, mut connection) = self.connection().await?;
                used = Some(number);
                match commands.query_async::<Vec<Result<Value, RedisError>>>(&mut connection).await {
                    Ok(answers) => {
                        if answers.iter().any(|answer| answer.as_ref().is_err_and(is_of_replica)) {
                            self.discard(number);
                        }
                        return Ok(answers);
                    }
                    Err(error) if !is_of_connection(&error) => return Err(error),
                    Err(error) => {
                        self.discard(number);
                        if tries == 0 {
                            return Err(error);
                        }
                    }
                }
            }
        };
        if let Ok(answer) = tokio::time::timeout(self.timeout, sending).await {
            return Ok(answer?);
        }
        // It may lead to a machine that is gone; the next call tries another.
        if let Some(number) = used {
            self.discard(number);
        }
        Err(Failure::Timeout(self.timeout))
    }

    /// Sends one command.
    pub(super) async fn ask(&self, command: Cmd, again: Again) -> Result<Value, Failure> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command).ignore_errors();
        let answer = self.send(&pipeline, again).await?.pop();
        Ok(answer.unwrap_or(Ok(Value::Nil))?)
    }

    /// Runs a script some times, and makes it known to the server first where it is not.
    pub(super) async fn run(
        &self,
        script: &Script,
        calls: Vec<Cmd>,
        again: Again,
    ) -> Result<Vec<Value>, Failure> {
        let mut pipeline = Pipeline::new();
        for call in calls {
            pipeline.add_command(call);
        }
        pipeline.ignore_errors();
        let answers = self.send(&pipeline, again).await?;
        if !answers.iter().any(|answer| answer.as_ref().is_err_and(is_of_unknown_script)) {
            return Ok(answers.into_iter().collect::<Result<_, _>>()?);
        }
        // A server that does not know the script ran none of the calls.
        self.ask(script.load(), Again::Yes).await?;
        Ok(self.send(&pipeline, again).await?.into_iter().collect::<Result<_, _>>()?)
    }
}

fn is_of_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}

fn is_of_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// After a failover the name may lead to the new primary.
fn is_of_replica(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}
