//! What happens in the store, heard on a connection of its own.
//!
//! Scripts publish in the same step in which they write. A thread listens, with a runtime of its own, so that no other
//! runtime has to live as long as the store; it starts when the first one wants to hear. Events that come while there is
//! no connection are lost, so each new one begins with [`Event::Lost`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, FromRedisValue, ProtocolVersion, PushInfo, PushKind, RedisError};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::super::Event;
use super::topology::Way;
use crate::policy::{Pool, TokenId};

/// How many events may wait for whoever is slow to hear them.
const EVENTS: usize = 4096;
/// How long to wait before the connection is made anew, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How often a silent connection is asked whether it is alive.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// The event that asks for credits back.
pub(super) fn recall_text(token: Option<&TokenId>, pool: Pool) -> String {
    format!("recall {} {}", token.map_or("-", TokenId::as_str), pool.as_str())
}

/// Reads what scripts publish; `None`: it is no event that is known here.
fn parse_event(text: &str) -> Option<Event> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits)
    };
    match text.split(' ').collect::<Vec<_>>()[..] {
        ["policy", token, version, epoch] => Some(Event::Policy {
            token: TokenId::parse(token)?,
            version: number(version)?,
            epoch: number(epoch)?,
        }),
        ["account", epoch] => Some(Event::Account { epoch: number(epoch)? }),
        ["recall", token, pool] => Some(Event::Recall {
            token: if token == "-" { None } else { Some(TokenId::parse(token)?) },
            pool: Pool::ALL.into_iter().find(|known| known.as_str() == pool)?,
        }),
        _ => None,
    }
}

/// Where to listen.
#[derive(Clone)]
struct Ear {
    way: Arc<Way>,
    pattern: String,
    timeout: Duration,
    events: broadcast::Sender<Event>,
}

/// The events, and the thread that brings them. Dropping it ends the thread.
pub(super) struct Feed {
    ear: Ear,
    /// Dropped with the feed: that ends the thread.
    running: Mutex<Option<oneshot::Sender<()>>>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("pattern", &self.ear.pattern).finish_non_exhaustive()
    }
}

impl Feed {
    /// A feed of what is published on channels of this pattern. It does not listen yet.
    pub(super) fn new(way: Arc<Way>, pattern: String, timeout: Duration) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        Self { ear: Ear { way, pattern, timeout, events }, running: Mutex::default() }
    }

    /// The events from now on. The first is [`Event::Lost`], once there is a connection.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        let receiver = self.ear.events.subscribe();
        let mut running = self.running.lock();
        if running.is_none() {
            let (stop, stopped) = oneshot::channel();
            let ear = self.ear.clone();
            let thread = std::thread::Builder::new().name("store-events".to_owned());
            match thread.spawn(move || ear.listen_until(stopped)) {
                Ok(_) => *running = Some(stop),
                // The epoch tells of changes all the same, only later.
                Err(error) => tracing::error!(%error, "cannot start the thread that listens to the store"),
            }
        }
        receiver
    }
}

impl Ear {
    fn listen_until(&self, stopped: oneshot::Receiver<()>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "cannot listen to the store");
                return;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                () = self.listen() => {}
            }
        });
    }

    async fn listen(&self) {
        let (mut wait, longest) = BACKOFF;
        let mut told = false;
        loop {
            let mut connected = false;
            if let Err(error) = self.hear(&mut connected).await {
                // Once for each outage.
                if connected || !told {
                    tracing::warn!(%error, "cannot hear the store's events; trying again");
                }
                told = true;
            }
            wait = if connected { BACKOFF.0 } else { (wait * 2).min(longest) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Hears events over one connection until it breaks.
    async fn hear(&self, connected: &mut bool) -> Result<(), RedisError> {
        let (push, mut pushed) = mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_push_sender(push);
        let place = self.way.any_place().await?;
        // Only by the newer protocol does the driver tell events and answers apart on one connection.
        let mut connection = self.way.connect(place.as_ref(), ProtocolVersion::RESP3, &config).await?;
        connection.psubscribe(&self.pattern).await?;
        *connected = true;
        self.tell(Event::Lost);
        let mut ask = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                biased;
                message = pushed.recv() => match message {
                    None => return Ok(()),
                    Some(message) if message.kind == PushKind::Disconnection => return Ok(()),
                    Some(message) => self.hear_one(message),
                },
                // A machine that is gone says nothing; a connection to it would stay silent for ever.
                _ = ask.tick() => {
                    redis::cmd("PING").query_async::<redis::Value>(&mut connection).await?;
                }
            }
        }
    }

    fn hear_one(&self, message: PushInfo) {
        if message.kind != PushKind::PMessage {
            return;
        }
        let text = message.data.into_iter().nth(2).and_then(|text| String::from_redis_value(text).ok());
        if let Some(event) = text.as_deref().and_then(parse_event) {
            self.tell(event);
        } else {
            // A newer Tollgate's, perhaps. The epoch says if it was a change.
            tracing::debug!("an event of the store that is not known here");
        }
    }

    fn tell(&self, event: Event) {
        // Where nobody listens any more, nothing is told.
        let _ = self.events.send(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_events_strictly() {
        let token = TokenId::from_ulid(ulid::Ulid(5));
        let event = Event::Policy { token: token.clone(), version: 3, epoch: 9 };
        assert_eq!(parse_event(&format!("policy {token} 3 9")), Some(event));
        assert_eq!(parse_event("account 7"), Some(Event::Account { epoch: 7 }));
        for token in [None, Some(token.clone())] {
            let text = recall_text(token.as_ref(), Pool::Premium);
            assert_eq!(parse_event(&text), Some(Event::Recall { token, pool: Pool::Premium }));
        }
        let bad = [
            String::new(),
            "policy".to_owned(),
            "account".to_owned(),
            "account ".to_owned(),
            "account +7".to_owned(),
            "account 7 ".to_owned(),
            "account -7".to_owned(),
            "account 99999999999999999999".to_owned(),
            "lost".to_owned(),
            format!("policy {token} 3"),
            format!("policy  {token} 3 9"),
            "policy tok_x 3 9".to_owned(),
            "recall - gold".to_owned(),
            "recall  core".to_owned(),
        ];
        for text in bad {
            assert_eq!(parse_event(&text), None, "{text}");
        }
    }
}
