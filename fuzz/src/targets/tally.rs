//! Any body in any chunks: counted as the whole, and never more of it let out than is paid for.

use crate::policy::cost::{Credits, Form, Price};
use crate::policy::tally::{BodyKind, Flow, Tally};

/// Checks one input: the size of chunks, the credits in hand and four rates come before the body.
pub fn check(data: &[u8]) {
    let Some((&[size, credits, ref rates @ ..], body)) = data.split_first_chunk::<6>() else { return };
    let chunk = usize::from(size) + 1;
    let rate =
        |at: usize| rates.get(at).filter(|rate| **rate > 0).map(|rate| Credits(u64::from(*rate % 4) + 1));
    let form = Form {
        credits: Credits(u64::from(rates[0] % 3)),
        per_kilobyte: rate(1),
        per_record: rate(2),
        per_event: rate(3),
        ..Form::default()
    };
    let price = Price::new(form).expect("rates that go together");
    let in_hand = Credits(u64::from(credits));
    for kind in BodyKind::ALL {
        let mut whole = Tally::new(kind);
        whole.feed(body);
        let mut parts = Tally::new(kind);
        body.chunks(chunk).for_each(|chunk| parts.feed(chunk));
        assert_eq!(whole, parts, "{kind:?}");

        let mut flow = Flow::new(price.rates(1, kind, None), kind);
        for chunk in body.chunks(chunk) {
            let sent = flow.admit(chunk, in_hand);
            assert!(sent <= chunk.len());
            assert!(sent == 0 || !flow.is_stream() || flow.due() <= in_hand, "{kind:?}");
            if sent < chunk.len() {
                assert!(flow.is_stream() && in_hand < flow.next_price(), "{kind:?}: more could go");
                break;
            }
        }
        assert!(flow.price() <= flow.due());
    }
    // An array that is plain to see has as many elements as it seems.
    if let Some(len) = simple_array_len(body) {
        let mut tally = Tally::new(BodyKind::Json);
        tally.feed(body);
        assert_eq!(tally.units(), len);
    }
}

/// The elements of an array of digits, spaces and commas alone.
fn simple_array_len(body: &[u8]) -> Option<u64> {
    let inner = body.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let items: Vec<&[u8]> = inner.split(|byte| *byte == b',').collect();
    items
        .iter()
        .all(|item| !item.is_empty() && item.iter().all(u8::is_ascii_digit))
        .then_some(items.len() as u64)
}
