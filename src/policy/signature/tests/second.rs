//! The scheme a second time, from the standards: SHA-256 by FIPS 180-4, HMAC by RFC 2104. It shares no line and no crate
//! with the first.

pub(super) struct Request<'r> {
    pub(super) method: &'r str,
    pub(super) path: &'r str,
    pub(super) query: &'r str,
    pub(super) host: &'r str,
    pub(super) date: &'r str,
    pub(super) body: &'r [u8],
    pub(super) secret: &'r str,
}

pub(super) fn signature(request: &Request<'_>) -> String {
    let Request { method, path, query, host, date, body, secret } = request;
    let lines = [
        (*method).to_owned(),
        (*path).to_owned(),
        (*query).to_owned(),
        format!("host:{host}"),
        format!("x-iex-date:{date}"),
        String::new(),
        "host;x-iex-date".to_owned(),
        hex(&sha256(body)),
    ];
    let scope = format!("{}/iex_request", &date[..8]);
    let to_sign = ["IEX-HMAC-SHA256", date, &scope, &hex(&sha256(lines.join("\n").as_bytes()))].join("\n");
    let k_date = hex(&hmac(secret.as_bytes(), &date.as_bytes()[..8]));
    let k_sign = hex(&hmac(k_date.as_bytes(), b"iex_request"));
    hex(&hmac(k_sign.as_bytes(), to_sign.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut key = if key.len() > 64 { sha256(key) } else { key.to_vec() };
    key.resize(64, 0);
    let pad = |with: u8| key.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = sha256(&[pad(0x36), message.to_vec()].concat());
    sha256(&[pad(0x5c), inner].concat())
}

fn primes() -> impl Iterator<Item = u32> {
    (2u32..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0))
}

/// The first 32 bits of the fraction of the `root`-th root of `n`, by integer search.
fn fraction(n: u32, root: u32) -> u32 {
    // The largest x with x^root <= n * 2^(32 * root).
    let (mut low, mut high) = (0u128, 1u128 << 40);
    while high - low > 1 {
        let middle = u128::midpoint(low, high);
        if fits(middle, n, root) { low = middle } else { high = middle }
    }
    (low & 0xffff_ffff) as u32
}

/// Whether x^root <= n * 2^(32 * root), in two limbs where 128 bits are too few.
fn fits(x: u128, n: u32, root: u32) -> bool {
    let n = u128::from(n);
    if root == 2 {
        return x * x <= n << 64;
    }
    // x^3 <= n * 2^96  <=>  x * (x^2) <= n * 2^96; x < 2^40, so x^2 < 2^80.
    let square = x * x;
    let (high, low) = (square >> 32, square & 0xffff_ffff);
    let (high, low) = (high * x, low * x);
    let (high, rest) = (high + (low >> 32), low & 0xffff_ffff);
    let most = n << 64;
    high < most || (high == most && rest == 0)
}

fn sha256(message: &[u8]) -> Vec<u8> {
    thread_local! {
        static CONSTANTS: (Vec<u32>, Vec<u32>) = (
            primes().take(64).map(|prime| fraction(prime, 3)).collect(),
            primes().take(8).map(|prime| fraction(prime, 2)).collect(),
        );
    }
    let (k, mut h) = CONSTANTS.with(Clone::clone);
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for t in 16..64 {
            let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
        }
        let mut v = h.clone();
        for t in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let one = [s1, choice, k[t], w[t]].iter().fold(v[7], |sum: u32, part| sum.wrapping_add(*part));
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(one);
            v[0] = one.wrapping_add(s0).wrapping_add(majority);
        }
        for (sum, part) in h.iter_mut().zip(v) {
            *sum = sum.wrapping_add(part);
        }
    }
    h.iter().flat_map(|word| word.to_be_bytes()).collect()
}
