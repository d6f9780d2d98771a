//! How long a request's body may be, and how slowly it may come.

use std::time::{Duration, Instant};

use http::header;
use pingora::proxy::Session;

use super::reply::Failure;
use super::visit::Late;
use crate::policy::Denial;

/// What bodies of requests are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploads {
    /// The longest, in bytes.
    pub most: u64,
    /// In each stretch of this length some of it must come: a KiB, where it does not end.
    pub patience: Duration,
}

/// The least that comes of a body in one stretch of time.
const LEAST: u64 = 1 << 10;

/// One body on its way.
#[derive(Debug, Default)]
pub(super) struct Upload {
    whole: u64,
    lately: u64,
    since: Option<Instant>,
}

impl Upload {
    /// Counts a piece; what is to be said if it is one too many.
    pub(super) fn count(
        &mut self,
        settings: &Uploads,
        length: usize,
        is_last: bool,
        now: Instant,
    ) -> Result<(), Late> {
        let length = length as u64;
        self.whole = self.whole.saturating_add(length);
        if self.whole > settings.most {
            return Err(Late::Denied(Denial::BodyTooLarge { most: settings.most }));
        }
        self.lately = self.lately.saturating_add(length);
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= settings.patience {
            if self.lately < LEAST && !is_last {
                return Err(Late::Failed(Failure::RequestTimeout));
            }
            (self.since, self.lately) = (Some(now), 0);
        }
        Ok(())
    }
}

/// How long the body is, if its head says so.
pub(super) fn announced(session: &Session) -> Option<u64> {
    let value = session.req_header().headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_refused_when_it_is_too_long_or_drips() {
        let settings = Uploads { most: 10_000, patience: Duration::from_secs(30) };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut fast = Upload::default();
        assert!(fast.count(&settings, 10_000, false, at(0)).is_ok());
        assert!(matches!(
            fast.count(&settings, 1, true, at(0)),
            Err(Late::Denied(Denial::BodyTooLarge { .. }))
        ));
        let mut steady = Upload::default();
        for second in 0..90 {
            assert!(steady.count(&settings, 50, false, at(second)).is_ok(), "{second}");
        }
        let mut drips = Upload::default();
        let mut refused = None;
        for second in 0..60 {
            if let Err(late) = drips.count(&settings, 1, false, at(second)) {
                refused = Some((second, late));
                break;
            }
        }
        assert!(matches!(refused, Some((30, Late::Failed(Failure::RequestTimeout)))));
        let mut ends = Upload::default();
        assert!(ends.count(&settings, 1, false, at(0)).is_ok());
        assert!(ends.count(&settings, 1, true, at(31)).is_ok());
    }
}
