//! Each count again, as simply as it can be said: over the whole body, byte by byte or line by line.

/// Elements of a JSON array.
pub(super) fn elements(body: &[u8]) -> u64 {
    let white = |byte: &u8| b" \t\r\n".contains(byte);
    let skipped = |byte: &&u8| white(byte) || b"\xef\xbb\xbf".contains(byte);
    let start = body.iter().take_while(skipped).count();
    match body.get(start) {
        None => return 0,
        Some(b'[') => {}
        Some(_) => return 1,
    }
    let (mut depth, mut commas, mut anything) = (1, 0, false);
    let (mut in_string, mut escaped) = (false, false);
    for byte in &body[start + 1..] {
        let plain = !std::mem::take(&mut escaped);
        if !anything && *byte == b']' {
            return 0;
        }
        anything |= !white(byte);
        match byte {
            b'\\' if plain => escaped = true,
            b'"' if plain => in_string = !in_string,
            _ if in_string || !plain => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 1 => commas += 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    if anything { commas + 1 } else { 0 }
}

/// Lines with something on them.
pub(super) fn lines(body: &[u8]) -> u64 {
    let lines = body.split(|byte| *byte == b'\n');
    lines.filter(|line| line.iter().any(|byte| !b" \t\r".contains(byte))).count() as u64
}

/// Events, by splitting into lines first.
pub(super) fn events(body: &[u8]) -> u64 {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // Bytes as characters: nothing of the grammar lies outside ASCII.
    let text: String = body.iter().map(|byte| char::from(*byte)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // no line end, no line
    let (mut events, mut data) = (0, false);
    for line in lines {
        if line.is_empty() {
            events += u64::from(std::mem::take(&mut data));
        } else if line.split(':').next() == Some("data") {
            data = true;
        }
    }
    events
}

/// Messages, frame by frame.
pub(super) fn messages(body: &[u8]) -> u64 {
    let (mut at, mut messages) = (0usize, 0);
    while let Some(first) = body.get(at) {
        messages += u64::from((1..=7).contains(&(first % 16)));
        let Some(second) = body.get(at + 1) else { break };
        let (long, short) = match second % 128 {
            126 => (2, 0),
            127 => (8, 0),
            short => (0, u64::from(short)),
        };
        let Some(bytes) = body.get(at + 2..at + 2 + long) else { break };
        let length = bytes.iter().fold(short, |length, byte| length * 256 + u64::from(*byte));
        let key = if *second >= 128 { 4 } else { 0 };
        let next = u128::from(length) + key + at as u128 + 2 + long as u128;
        match usize::try_from(next) {
            Ok(next) => at = next,
            Err(_) => break,
        }
    }
    messages
}

/// A frame of so many zeros.
pub(super) fn frame(first: u8, len: usize, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut frame = vec![first];
    match len {
        0..=125 => frame.push(mask + u8::try_from(len).expect("short")),
        126..=0xffff => {
            frame.push(mask + 126);
            frame.extend(u16::try_from(len).expect("not long").to_be_bytes());
        }
        _ => {
            frame.push(mask + 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(std::iter::repeat_n(0, len + if masked { 4 } else { 0 }));
    frame
}
