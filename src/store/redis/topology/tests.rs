use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A node of a cluster that says, whenever it is asked, that these slots are its own.
async fn node_with(first: u16, last: u16) -> Place {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = format!("*1\r\n*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut asked = [0; 1024];
                while let Ok(1..) = stream.read(&mut asked).await {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    Place { host: "127.0.0.1".to_owned(), port }
}

fn way_to(nodes: &[&Place]) -> Way {
    let nodes = nodes.iter().map(|node| (*node).clone()).collect();
    let timeout = Duration::from_secs(5);
    let servers = RedisServers::Cluster { nodes };
    Way::new(&RedisSettings { servers, timeout, ..RedisSettings::new("redis://127.0.0.1") }).unwrap()
}

/// Found while a replica was being promoted: what a node that knew less had said was kept for good.
#[tokio::test]
async fn a_gap_in_what_was_learnt_is_asked_about_again() {
    let (low, high) = (node_with(0, 99).await, node_with(100, 199).await);
    let way = way_to(&[&low, &high]);
    for slot in [5, 150, 7, 199] {
        let keeper = if slot < 100 { &low } else { &high };
        assert_eq!(way.place(Some(slot)).await.unwrap().as_ref(), Some(keeper), "{slot}");
    }
}

#[tokio::test]
async fn a_slot_that_nobody_keeps_is_an_error_until_somebody_does() {
    let (low, high) = (node_with(0, 99).await, node_with(100, 199).await);
    let way = way_to(&[&low]);
    way.place(Some(150)).await.unwrap_err();
    way.place(Some(150)).await.unwrap_err();
    way.learn(150, high.clone());
    assert_eq!(way.place(Some(150)).await.unwrap(), Some(high));
    assert_eq!(way.place(Some(5)).await.unwrap(), Some(low));
}
