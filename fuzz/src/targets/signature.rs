//! Any bytes as a signed request: only what was really signed is verified, however it is written.

use std::time::Duration;

use jiff::Timestamp;
use crate::policy::signature::{
    BodyDigest, Checked, Claim, RawRequest, SignatureBody, SignatureRefusal, SigningSecret, sign,
};
use crate::policy::token::Token;

const PK: &str = "pk_0123456789abcdef0123456789abcdef";

/// Checks one input.
pub fn check(data: &[u8]) {
    // Lines are: the target, the host, x-iex-date, the body, and the values of Authorization. `{}` in one of these stands
    // for the right value.
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (target, host, date, body) = (line(), line(), line(), line());
    let (Some(token), Some(secret)) = (Token::parse(PK.as_bytes()), SigningSecret::parse("ss_secret")) else {
        return;
    };
    let now = Timestamp::from_second(1_705_321_845).expect("a time");
    let signed_host = String::from_utf8_lossy(host);
    let Some(signing) = sign("POST", target, &signed_host, body, PK, &secret, now) else { return };
    let fill = |line: &[u8], right: &str| match std::str::from_utf8(line) {
        Ok(text) => text.replace("{}", right).into_bytes(),
        Err(_) => line.to_vec(),
    };
    let date = fill(date, &signing.date);
    let authorization: Vec<_> = lines.map(|value| fill(value, &signing.authorization)).collect();
    let authorization: Vec<_> = authorization.iter().map(Vec::as_slice).collect();
    let request = RawRequest {
        method: "POST",
        target,
        host: Some(host),
        authorization: &authorization,
        dates: &[&date],
    };
    let claim = match Claim::read(&request, &token, now, Duration::from_secs(300)) {
        Ok(claim) => claim,
        Err(SignatureRefusal::BodyTooLarge { .. }) => panic!("no body was read"),
        Err(_) => return,
    };
    let Ok(Checked::Pending(pending)) = claim.check([&secret], SignatureBody::Strict, true) else {
        panic!("a strict body was not asked for");
    };
    let honest = std::str::from_utf8(host).is_ok() && date == signing.date.as_bytes();
    let holds = |value: &&[u8]| value.windows(64).any(|window| window == signing.signature.as_bytes());
    let plain = honest && authorization == [signing.authorization.as_bytes()];
    let verified = pending.finish(&BodyDigest::of(body)).is_ok();
    assert!(!verified || (honest && authorization.iter().any(holds)), "verified what was not signed");
    assert!(verified || !plain, "refused what was signed");
}
