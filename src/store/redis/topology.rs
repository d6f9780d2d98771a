//! Where the servers are: one, a master that sentinels name, or a cluster. Owns how a connection to the right one is made;
//! [`super::link`] keeps it. It knows no key's meaning.
//!
//! The Redis crate's own Sentinel and Cluster clients are not used. A lease that waits for replicas must send `WAIT` over
//! the very connection that wrote it, and no call may outlast its timeout, whatever the crate would try meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates, Value,
};
use tokio::task::JoinSet;

use super::{ConnectError, RedisSettings};
use slots::Cluster;

pub(super) mod slots;

/// How many servers are asked at once where a cluster's slots are.
const ASKED_AT_ONCE: usize = 64;

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// A DNS name or an IP address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Which servers, and how they stand together.
#[derive(Debug, Clone)]
pub enum RedisServers {
    /// One server, or a name that leads to one: `redis://HOST[:PORT][/DB]`, the same with `rediss`, or `unix:///PATH`.
    /// May carry user name and password.
    Standalone(String),
    /// A master and its replicas, watched by sentinels.
    Sentinel {
        /// Some of the sentinels.
        sentinels: Vec<Place>,
        /// The name they know the master by.
        master: String,
    },
    /// A cluster of masters.
    Cluster {
        /// Some of its nodes.
        nodes: Vec<Place>,
    },
}

/// Whom TLS trusts, and what the client shows: PEM files.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// Whose certificates are trusted; `None`: those of the public authorities.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How servers are found.
enum Servers {
    Standalone,
    Sentinel { sentinels: Vec<Place>, master: String },
    Cluster(Cluster),
}

/// The way to the servers.
pub(super) struct Way {
    servers: Servers,
    /// Login, database and TLS of each connection; the address is that of a standalone server.
    info: ConnectionInfo,
    timeout: Duration,
}

impl Way {
    /// The way these settings tell. It speaks to no server yet.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, ConnectError> {
        let first = |places: &[Place]| {
            let none = || ConnectError::Address("no server is named".to_owned());
            places.first().map(|place| plain(place).into_connection_info()).ok_or_else(none)
        };
        let (servers, info) = match &settings.servers {
            RedisServers::Standalone(url) => (Servers::Standalone, url.as_str().into_connection_info()),
            RedisServers::Sentinel { sentinels, master } => (
                Servers::Sentinel { sentinels: sentinels.clone(), master: master.clone() },
                first(sentinels)?,
            ),
            RedisServers::Cluster { nodes } => (Servers::Cluster(Cluster::new(nodes)), first(nodes)?),
        };
        let address = |error: RedisError| ConnectError::Address(error.to_string());
        let info = info.map_err(address)?;
        let redis = login(info.redis_settings().clone(), settings);
        let info = secure(info.set_redis_settings(redis), settings.tls.as_ref())?;
        let info = Client::open(info).map_err(address)?.get_connection_info().clone();
        Ok(Self { servers, info, timeout: settings.timeout })
    }

    /// The slot these commands belong to; only in a cluster does it matter.
    pub(super) fn slot_of(&self, commands: &Pipeline) -> Option<u16> {
        match &self.servers {
            Servers::Cluster(cluster) => Some(cluster.slot_of(commands)),
            Servers::Standalone | Servers::Sentinel { .. } => None,
        }
    }

    /// Which server keeps a slot; `None`: there is but one to ask.
    pub(super) async fn place(&self, slot: Option<u16>) -> Result<Option<Place>, RedisError> {
        let (Servers::Cluster(cluster), Some(slot)) = (&self.servers, slot) else { return Ok(None) };
        if let Some(place) = cluster.known(slot) {
            return Ok(Some(place));
        }
        self.learn_slots(cluster, |cluster| cluster.known(slot).is_some()).await?;
        cluster
            .known(slot)
            .map(Some)
            .ok_or_else(|| away(&format!("no node of the cluster keeps slot {slot}")))
    }

    /// Any server on which all that is published is heard.
    pub(super) async fn any_place(&self) -> Result<Option<Place>, RedisError> {
        let Servers::Cluster(cluster) = &self.servers else { return Ok(None) };
        // Anew each time: the last one may be why a connection is made at all.
        cluster.forget();
        self.learn_slots(cluster, Cluster::is_known).await?;
        cluster.next_master().map(Some).ok_or_else(|| away("the cluster has no nodes"))
    }

    /// Asks nodes, until what is known is `enough`. While a master is away or a slot moves, some know less than others, so
    /// an answer with a gap where it matters is not the last word.
    async fn learn_slots(
        &self,
        cluster: &Cluster,
        enough: impl Fn(&Cluster) -> bool,
    ) -> Result<(), RedisError> {
        let _turn = cluster.learning.lock().await;
        if enough(cluster) {
            return Ok(());
        }
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("SLOTS");
        let places = cluster.places().into_iter().take(ASKED_AT_ONCE);
        let asked = places.map(|place| (self.info_of(&place), place));
        let learn = |place: &Place, answer| {
            cluster.learn_all(&place.host, &answer)?;
            enough(cluster).then_some(())
        };
        self.ask_first(asked, &ask, learn).await
    }

    /// What was learnt of a cluster may be wrong. `true`: the next try may lead elsewhere.
    pub(super) fn forget(&self) -> bool {
        match &self.servers {
            Servers::Cluster(cluster) => cluster.forget(),
            Servers::Standalone | Servers::Sentinel { .. } => false,
        }
    }

    /// A node said that a slot is elsewhere.
    pub(super) fn learn(&self, slot: u16, place: Place) {
        if let Servers::Cluster(cluster) = &self.servers {
            cluster.learn(slot, place);
        }
    }

    /// Connects: to this server, or else to the one there is, which must be a master if sentinels named it.
    pub(super) async fn connect(
        &self,
        place: Option<&Place>,
        protocol: ProtocolVersion,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        let (info, named) = match (&self.servers, place) {
            (_, Some(place)) => (self.info_of(place), false),
            (Servers::Sentinel { sentinels, master }, None) => {
                (self.info_of(&self.find_master(sentinels, master).await?), true)
            }
            (Servers::Standalone | Servers::Cluster(_), None) => (self.info.clone(), false),
        };
        let redis = info.redis_settings().clone().set_protocol(protocol);
        let client = Client::open(info.set_redis_settings(redis))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
        if named {
            let role: Value = redis::cmd("ROLE").query_async(&mut connection).await?;
            let role = Vec::<Value>::from_redis_value(role)?.into_iter().next().unwrap_or(Value::Nil);
            if String::from_redis_value(role)? != "master" {
                return Err(away("the sentinels name a server that is no master (yet)"));
            }
        }
        Ok(connection)
    }

    /// Asks all sentinels at once; the first that knows the master has the word. [`Self::connect`] checks it.
    async fn find_master(&self, sentinels: &[Place], master: &str) -> Result<Place, RedisError> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(master);
        let asked = sentinels.iter().map(|place| {
            let info = self.info_of(place);
            let redis = info.redis_settings().clone().set_db(0);
            (info.set_redis_settings(redis), place.clone())
        });
        self.ask_first(asked, &ask, |_, answer| {
            let (host, port) = Option::<(String, u16)>::from_redis_value(answer).ok()??;
            Some(Place { host, port })
        })
        .await
    }

    /// Asks some servers at once; the first answer that can be read counts.
    async fn ask_first<T>(
        &self,
        asked: impl Iterator<Item = (ConnectionInfo, Place)>,
        ask: &Cmd,
        read: impl Fn(&Place, Value) -> Option<T>,
    ) -> Result<T, RedisError> {
        let mut asking = JoinSet::new();
        for (info, place) in asked {
            let (ask, timeout) = (ask.clone(), self.timeout);
            asking.spawn(async move { (place, ask_one(info, &ask, timeout).await) });
        }
        let mut last = away("no server knows where to turn to");
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok((place, Ok(answer))) => {
                    if let Some(found) = read(&place, answer) {
                        return Ok(found);
                    }
                }
                Ok((_, Err(error))) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    fn info_of(&self, place: &Place) -> ConnectionInfo {
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: place.host.clone(),
                port: place.port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => plain(place),
        };
        self.info.clone().set_addr(address)
    }
}

/// Asks one server over a connection of its own. A sentinel seldom wants a login, and refuses one it does not want.
async fn ask_one(info: ConnectionInfo, ask: &Cmd, timeout: Duration) -> Result<Value, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    let nobody = RedisConnectionInfo::default().set_skip_set_lib_name();
    let mut last = None;
    for info in [info.clone().set_redis_settings(nobody), info] {
        let client = Client::open(info)?;
        let answer = match client.get_multiplexed_async_connection_with_config(&config).await {
            Ok(mut connection) => ask.query_async(&mut connection).await,
            Err(error) => Err(error),
        };
        match answer {
            Err(error) if matches!(error.code(), Some("NOAUTH" | "NOPERM")) => last = Some(error),
            answer => return answer,
        }
    }
    Err(last.unwrap_or_else(|| away("the server wants a login")))
}

fn plain(place: &Place) -> ConnectionAddr {
    ConnectionAddr::Tcp(place.host.clone(), place.port)
}

/// A server that cannot be asked now: as a connection that cannot be made.
fn away(why: &str) -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, why).into()
}

fn login(mut redis: RedisConnectionInfo, settings: &RedisSettings) -> RedisConnectionInfo {
    if let Some(database) = settings.database {
        redis = redis.set_db(database);
    }
    if let Some(username) = &settings.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password);
    }
    redis
}

/// Gives a connection its certificates, where TLS is spoken.
fn secure(info: ConnectionInfo, tls: Option<&RedisTls>) -> Result<ConnectionInfo, ConnectError> {
    let Some(tls) = tls else { return Ok(info) };
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| ConnectError::Certificate { path: path.clone(), source })
    };
    let client_tls = match &tls.identity {
        Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        None => None,
    };
    let root_cert = tls.ca.as_ref().map(read).transpose()?;
    if root_cert.as_ref().is_some_and(|pem| !pem.windows(10).any(|part| part == b"-----BEGIN")) {
        return Err(ConnectError::Tls("the file of trusted certificates holds none".to_owned()));
    }
    let address = match info.addr().clone() {
        ConnectionAddr::Tcp(host, port) => {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        }
        address => address,
    };
    let client = Client::build_with_tls(info.set_addr(address), TlsCertificates { client_tls, root_cert });
    let client = client.map_err(|error| ConnectError::Tls(error.to_string()))?;
    Ok(client.get_connection_info().clone())
}

/// Addresses without repetition, in their first order.
fn distinct(places: impl IntoIterator<Item = Place>) -> Vec<Place> {
    let mut seen = BTreeSet::new();
    places.into_iter().filter(|place| seen.insert(place.clone())).collect()
}

#[cfg(test)]
mod tests;
