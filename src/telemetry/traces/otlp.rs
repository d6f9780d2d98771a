//! OTLP as bytes: `ExportTraceServiceRequest` in protobuf (opentelemetry-proto, `trace/v1/trace.proto`).
//!
//! Some ten messages with a few fields each are all that is needed, and each field is two numbers; so they are written
//! here by hand. `tests/it/observability/traces.rs` has the official classes read them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::span::{Kind, Span, Trace, Value};

/// Which program the spans are of.
pub(super) struct Resource {
    pub(super) service_name: String,
    pub(super) instance: String,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// W3C flags, and "the parent is elsewhere" with "this is known" (`SpanFlags`).
const SAMPLED: u32 = 1;
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or_default());
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        self.varint((field << 3) | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, value: u32) {
        self.varint((field << 3) | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint((field << 3) | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn attribute(&mut self, field: u64, name: &str, value: &Value) {
        self.message(field, |pair| {
            pair.text(1, name);
            pair.message(2, |any| match value {
                Value::Text(text) => any.text(1, text),
                Value::Number(number) => any.number(3, *number),
            });
        });
    }
}

/// A request for a collector.
pub(super) fn encode(resource: &Resource, traces: &[Trace]) -> Vec<u8> {
    let clock = Clock { instant: Instant::now(), time: SystemTime::now() };
    let mut request = Message::default();
    request.message(1, |spans| {
        spans.message(1, |of| {
            for (name, value) in [
                ("service.name", resource.service_name.as_str()),
                ("service.version", VERSION),
                ("service.instance.id", &resource.instance),
                ("telemetry.sdk.name", "tollgate"),
                ("telemetry.sdk.language", "rust"),
                ("telemetry.sdk.version", VERSION),
            ] {
                of.attribute(1, name, &Value::from(value.to_owned()));
            }
        });
        spans.message(2, |scope| {
            scope.message(1, |name| {
                name.text(1, "tollgate");
                name.text(2, VERSION);
            });
            for trace in traces {
                for span in &trace.spans {
                    scope.message(2, |message| write_span(message, trace, span, &clock));
                }
            }
        });
    });
    request.0
}

fn write_span(message: &mut Message, trace: &Trace, span: &Span, clock: &Clock) {
    message.bytes(1, trace.id.bytes());
    message.bytes(2, span.id.bytes());
    if let Some(state) = trace.state.as_ref().and_then(|state| state.to_str().ok()) {
        message.text(3, state);
    }
    if let Some(parent) = &span.parent {
        message.bytes(4, parent.bytes());
    }
    message.text(5, &span.name);
    message.number(
        6,
        match span.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
    );
    message.fixed64(7, clock.unix_nanos(span.start));
    message.fixed64(8, clock.unix_nanos(span.end));
    for (name, value) in &span.attributes {
        message.attribute(9, name, value);
    }
    if span.failed {
        message.message(15, |status| status.number(3, 2));
    }
    let remote = if span.kind == Kind::Server && span.parent.is_some() { REMOTE } else { 0 };
    message.fixed32(16, SAMPLED | REMOTE_KNOWN | remote);
}

/// Both clocks at one moment: spans are timed by the one that never jumps, and told by the other.
struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    fn unix_nanos(&self, at: Instant) -> u64 {
        let ago = self.instant.saturating_duration_since(at);
        let time = self.time.checked_sub(ago).unwrap_or(UNIX_EPOCH);
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_many_bytes_as_they_need() {
        for (value, bytes) in [
            (0, vec![8, 0]),
            (127, vec![8, 127]),
            (128, vec![8, 0x80, 1]),
            (300, vec![8, 0xac, 2]),
            (u64::MAX, vec![8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut message = Message::default();
            message.number(1, value);
            assert_eq!(message.0, bytes, "{value}");
        }
    }

    #[test]
    fn a_message_within_a_message_has_its_length_before_it() {
        let mut message = Message::default();
        message.message(15, |status| status.number(3, 2));
        assert_eq!(message.0, [0x7a, 2, 0x18, 2]);
    }

    #[test]
    fn times_lie_in_the_past_by_as_much_as_they_did() {
        let clock = Clock { instant: Instant::now(), time: UNIX_EPOCH + Duration::from_secs(1_000) };
        let at = clock.instant.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(clock.unix_nanos(at), 999_999_000_000);
    }
}
