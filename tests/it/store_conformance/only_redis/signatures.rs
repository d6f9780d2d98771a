//! Signatures and secrets, as the server sees them.

use super::super::signatures::sighting;
use super::*;
use tollgate::store::{Remembered, Sighting};

async fn bench_with_server() -> (Bench, redis::aio::MultiplexedConnection) {
    let bench = Bench::redis();
    let Raw::Redis(server) = &bench.raw else { panic!("Redis") };
    let connection = connect(server).await;
    (bench, connection)
}

#[tokio::test]
async fn an_account_from_before_there_was_a_set_of_secret_tokens_gets_one() {
    let (bench, mut connection) = bench_with_server().await;
    let (first, _) = bench.make_account(PerPool::default()).await;
    for _ in 0..3 {
        bench.make_token(|_| ()).await;
    }
    let (second, _) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let _: u64 = ask(&mut connection, &["DEL", "tg:{default}:secrets"]).await;
    let (third, _) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    for _ in 0..2 {
        let all = bench.store().account_secrets(&account_id()).await.unwrap();
        let ids: Vec<_> = all.secrets.into_iter().map(|found| found.token_id).collect();
        assert_eq!(ids, [first.clone(), second.id.clone(), third.id.clone()]);
        let kept: u64 = ask(&mut connection, &["SCARD", "tg:{default}:secrets"]).await;
        assert_eq!(kept, 4, "the three, and that they are all");
    }
}

#[tokio::test]
async fn signatures_of_one_second_share_a_key_that_ends() {
    let (bench, mut connection) = bench_with_server().await;
    let first = sighting(&bench, 1);
    let batch: Vec<Sighting> = (0..20)
        .map(|n| Sighting { dated: first.dated + i64::try_from(n % 2).unwrap(), ..sighting(&bench, n) })
        .collect();
    bench.store().remember_signatures(&account_id(), &batch).await.unwrap();
    let keys: Vec<String> = ask(&mut connection, &["KEYS", "*"]).await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    for second in [first.dated, first.dated + 1] {
        let key = format!("tg:{{default.{second}}}:signatures");
        let fields: u64 = ask(&mut connection, &["HLEN", &key]).await;
        assert_eq!(fields, 11, "ten, and when they end");
        let left: i64 = ask(&mut connection, &["PTTL", &key]).await;
        assert!((300_000..=360_000).contains(&left), "{left}");
    }
}

#[tokio::test]
async fn a_server_without_memory_is_a_full_memory() {
    let (bench, mut connection) = bench_with_server().await;
    let uses: Vec<_> = (0..10).map(|n| sighting(&bench, n)).collect();
    assert_eq!(
        bench.store().remember_signatures(&account_id(), &uses[..1]).await.unwrap(),
        [Remembered::New]
    );
    for (name, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", "1")] {
        let _: String = ask(&mut connection, &["CONFIG", "SET", name, value]).await;
    }
    let answers = bench.store().remember_signatures(&account_id(), &uses).await.unwrap();
    assert_eq!(answers, [Remembered::Full; 10]);
    let _: String = ask(&mut connection, &["CONFIG", "SET", "maxmemory", "0"]).await;
    let again: Vec<_> = (0..2).map(|n| sighting(&bench, n)).collect();
    let answers = bench.store().remember_signatures(&account_id(), &again).await.unwrap();
    assert_eq!(answers, [Remembered::Seen, Remembered::New], "nothing was forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_nodes_one_lets_a_signature_through() {
    let server = RedisServer::start();
    let nodes: Vec<_> = (0..4).map(|_| Arc::new(open(&server, Duration::from_secs(10)))).collect();
    let bench = Bench::redis();
    let now = jiff::Timestamp::now().as_second();
    for n in 0..20 {
        let uses = nodes.iter().map(|node| {
            let (node, use_) = (node.clone(), Sighting { dated: now, ..sighting(&bench, n) });
            tokio::spawn(async move { node.remember_signatures(&account_id(), &[use_]).await.unwrap() })
        });
        let mut new = 0;
        for use_ in uses.collect::<Vec<_>>() {
            new += usize::from(use_.await.unwrap() == [Remembered::New]);
        }
        assert_eq!(new, 1);
    }
}
