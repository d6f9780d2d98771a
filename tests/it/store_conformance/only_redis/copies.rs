//! Calls that come to the server twice, the second time late: what a broken connection makes of a call that is sent again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::ledger::lease::Reserved;
use tollgate::policy::{Credits, Period, Pool};
use tollgate::store::redis::{RedisSettings, RedisStore};
use tollgate::store::{LeaseId, Store};

use super::super::bench::{Takes as _, account_id, charge, sealer, settlement};
use super::furnish;
use crate::harness::redis_server::RedisServer;

/// A way to the server that keeps what it is told to keep, and breaks the connection it came by.
struct Relay {
    address: String,
    /// The lease of whose first call is kept, and then that call.
    caught: Arc<Mutex<(Option<LeaseId>, Vec<u8>)>>,
}

impl Relay {
    async fn to(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let caught = Arc::new(Mutex::new((None, Vec::new())));
        let (port, held) = (server.port(), caught.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, port, held.clone()));
            }
        });
        Self { address, caught }
    }

    fn catch(&self, lease: LeaseId) {
        *self.caught.lock() = (Some(lease), Vec::new());
    }

    /// Brings what was kept to the server; what it answered.
    async fn deliver(&self, server: &RedisServer) -> String {
        let call = std::mem::take(&mut self.caught.lock().1);
        assert!(!call.is_empty(), "nothing was kept");
        let mut connection = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        connection.write_all(&call).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = connection.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}

async fn pass_on(mut client: TcpStream, port: u16, caught: Arc<Mutex<(Option<LeaseId>, Vec<u8>)>>) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                if keep(&up[..length], &mut caught.lock()) {
                    return;
                }
                server.write_all(&up[..length]).await.unwrap();
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                client.write_all(&down[..length]).await.unwrap();
            }
        }
    }
}

fn keep(call: &[u8], caught: &mut (Option<LeaseId>, Vec<u8>)) -> bool {
    let Some(lease) = caught.0 else { return false };
    if !String::from_utf8_lossy(call).contains(&lease.0.to_string()) {
        return false;
    }
    *caught = (None, call.to_vec());
    true
}

fn store_behind(relay: &Relay) -> RedisStore {
    let settings = RedisSettings {
        timeout: Duration::from_secs(10),
        ..RedisSettings::new(&format!("redis://{}", relay.address))
    };
    RedisStore::connect(&settings, Some(sealer())).unwrap()
}

#[tokio::test]
async fn a_late_copy_of_a_reserve_that_was_refused_grants_nothing() {
    let server = RedisServer::start();
    let relay = Relay::to(&server).await;
    let store = store_behind(&relay);
    let (policy, _) = furnish(&store).await;
    let all = charge(&policy.id, Pool::Core, 1000);
    assert!(matches!(store.take(&all).await.unwrap(), Reserved::Granted(_)));
    let refused = charge(&policy.id, Pool::Core, 10);
    relay.catch(refused.key.lease);
    assert!(matches!(store.take(&refused).await.unwrap(), Reserved::CreditsExhausted { .. }));
    // What it wanted is free again when the copy comes.
    store.settle(&[settlement(&all, 0)]).await.unwrap();
    let answer = relay.deliver(&server).await;
    assert!(answer.contains("void"), "{answer}");
    let counted = store.token_usage(&account_id(), &policy.id).await.unwrap();
    assert_eq!(counted.counters.core.leased(Period::None, counted.at), Credits(0));
}

#[tokio::test]
async fn a_late_copy_of_a_reserve_that_was_granted_leases_nothing_more() {
    let server = RedisServer::start();
    let relay = Relay::to(&server).await;
    let store = store_behind(&relay);
    let (policy, _) = furnish(&store).await;
    store.take(&charge(&policy.id, Pool::Core, 0)).await.unwrap();
    for settled_before in [false, true] {
        let granted = charge(&policy.id, Pool::Core, 10);
        relay.catch(granted.key.lease);
        assert!(matches!(store.take(&granted).await.unwrap(), Reserved::Granted(_)));
        if settled_before {
            store.settle(&[settlement(&granted, 4)]).await.unwrap();
        }
        let answer = relay.deliver(&server).await;
        assert_eq!(answer.contains("void"), settled_before, "{answer}");
        let counted = store.token_usage(&account_id(), &policy.id).await.unwrap();
        let leased = counted.counters.core.leased(Period::None, counted.at).0;
        assert_eq!(leased, if settled_before { 0 } else { 10 });
        if !settled_before {
            store.settle(&[settlement(&granted, 4)]).await.unwrap();
        }
    }
}
