use tokio::sync::{Mutex as Turn, Semaphore};

use super::*;

const SHARING: Sharing = Sharing {
    batch: 8,
    flights: 3,
    late: Duration::from_mins(1),
    waiting: 20,
    gather: Duration::ZERO,
    in_turn: false,
};

/// Answers each number with itself, once it is let; fails or breaks off where it is told to.
struct Echo {
    shared: SharedCalls<Self>,
    let_by: Semaphore,
    calls: Turn<Vec<Vec<u32>>>,
}

const FAILS: u32 = 1_000;
const PANICS: u32 = 1_001;
const FORGETS: u32 = 1_002;

impl Caller for Echo {
    type Key = char;
    type Ask = u32;
    type Answer = Result<u32, ()>;

    fn shared(&self) -> &SharedCalls<Self> {
        &self.shared
    }

    async fn call(&self, _: &char, asks: Vec<u32>) -> Called<Self::Answer> {
        self.calls.lock().await.push(asks.clone());
        self.let_by.acquire().await.unwrap().forget();
        assert!(!asks.contains(&PANICS), "as it was told");
        if asks.contains(&FAILS) {
            return Called::Failed(Box::new(|| Err(())));
        }
        Called::Answered(asks.into_iter().filter(|ask| *ask != FORGETS).map(Ok).collect())
    }
}

fn echo(sharing: Sharing) -> Arc<Echo> {
    Arc::new(Echo { shared: SharedCalls::new(sharing), let_by: Semaphore::new(0), calls: Turn::default() })
}

fn ask(echo: &Arc<Echo>, key: char, number: u32) -> Option<oneshot::Receiver<Result<u32, ()>>> {
    SharedCalls::ask(echo, &Handle::current(), &key, number)
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("it comes to pass");
}

#[tokio::test]
async fn what_waits_shares_the_next_call_in_its_order() {
    let echo = echo(SHARING);
    let first = ask(&echo, 'a', 0).unwrap();
    until(|| echo.shared.extent(&'a') == (0, 1)).await;
    let others: Vec<_> = (1..=5).map(|number| ask(&echo, 'a', number).unwrap()).collect();
    let elsewhere = ask(&echo, 'b', 9).unwrap();
    assert_eq!(echo.shared.extent(&'a'), (5, 1));
    echo.let_by.add_permits(3);
    assert_eq!(first.await.unwrap(), Ok(0));
    for (at, other) in others.into_iter().enumerate() {
        assert_eq!(other.await.unwrap(), Ok(u32::try_from(at).unwrap() + 1));
    }
    assert_eq!(elsewhere.await.unwrap(), Ok(9));
    let mut calls = echo.calls.lock().await.clone();
    calls.sort();
    assert_eq!(calls, [vec![0], vec![1, 2, 3, 4, 5], vec![9]]);
    until(|| echo.shared.queues.lock().is_empty()).await;
}

#[tokio::test]
async fn a_full_call_does_not_wait_and_more_than_may_wait_are_turned_away() {
    let echo = echo(SHARING);
    let mut told = vec![ask(&echo, 'a', 0).unwrap()];
    until(|| echo.shared.extent(&'a') == (0, 1)).await;
    for number in 1..=8 {
        told.push(ask(&echo, 'a', number).unwrap());
    }
    until(|| echo.shared.extent(&'a') == (0, 2)).await;
    for number in 9..=16 {
        told.push(ask(&echo, 'a', number).unwrap());
    }
    until(|| echo.shared.extent(&'a') == (0, 3)).await;
    // That is as many calls as there may be.
    for number in 17..=36 {
        told.push(ask(&echo, 'a', number).unwrap());
    }
    assert_eq!(echo.shared.extent(&'a'), (20, 3));
    assert!(ask(&echo, 'a', 37).is_none());
    echo.let_by.add_permits(100);
    for (at, told) in told.into_iter().enumerate() {
        assert_eq!(told.await.unwrap(), Ok(u32::try_from(at).unwrap()));
    }
    assert!(echo.calls.lock().await.iter().all(|call| call.len() <= 8));
}

#[tokio::test]
async fn a_late_call_holds_nobody_up() {
    let echo = echo(Sharing { late: Duration::ZERO, ..SHARING });
    let _first = ask(&echo, 'a', 0).unwrap();
    until(|| echo.shared.extent(&'a') == (0, 1)).await;
    let _second = ask(&echo, 'a', 1).unwrap();
    until(|| echo.shared.extent(&'a') == (0, 2)).await;
}

#[tokio::test]
async fn a_call_that_fails_is_told_to_those_behind_it_too() {
    let echo = echo(SHARING);
    let first = ask(&echo, 'a', FAILS).unwrap();
    until(|| echo.shared.extent(&'a') == (0, 1)).await;
    let behind = ask(&echo, 'a', 1).unwrap();
    echo.let_by.add_permits(1);
    assert_eq!((first.await.unwrap(), behind.await.unwrap()), (Err(()), Err(())));
    assert_eq!(*echo.calls.lock().await, [[FAILS]]);
    echo.let_by.add_permits(1);
    assert_eq!(ask(&echo, 'a', 2).unwrap().await.unwrap(), Ok(2));
}

#[tokio::test]
async fn whoever_leaves_is_left_out_and_a_call_that_breaks_off_leaves_its_place() {
    let echo = echo(SHARING);
    let first = ask(&echo, 'a', PANICS).unwrap();
    until(|| echo.shared.extent(&'a') == (0, 1)).await;
    let behind = ask(&echo, 'a', 1).unwrap();
    echo.let_by.add_permits(1);
    first.await.unwrap_err();
    behind.await.unwrap_err();
    let first = ask(&echo, 'a', 2).unwrap();
    until(|| echo.shared.extent(&'a') == (0, 1)).await;
    drop(ask(&echo, 'a', 3).unwrap());
    let (forgotten, stays) = (ask(&echo, 'a', FORGETS).unwrap(), ask(&echo, 'a', 4).unwrap());
    echo.let_by.add_permits(2);
    assert_eq!(first.await.unwrap(), Ok(2));
    // Fewer answers than asks: nobody can say whose they are.
    forgotten.await.unwrap_err();
    stays.await.unwrap_err();
    assert_eq!(*echo.calls.lock().await, [vec![PANICS], vec![2], vec![FORGETS, 4]]);
}
