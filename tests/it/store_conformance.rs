//! One suite over both stores: whatever the gate may rely on, each of them does.
//!
//! A case is a function over a [`Bench`]; [`on_both`] makes it two tests, `embedded::…` and `redis::…`. What only one
//! of the stores promises is in [`only_embedded`] and [`only_redis`].

mod accounts;
mod bench;
mod credits;
mod histories;
mod keeping;
mod leases;
mod news;
mod only_embedded;
mod only_redis;
mod people;
mod periods;
mod records;
mod signatures;
mod tokens;
mod trail;
mod usage;
mod values;

/// Makes two tests of each case, one for each store.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Bench::embedded()).await;
            })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Bench::redis()).await;
            })*
        }
    };
}
use on_both;

pub(crate) use bench::a_note;
