//! Single values of an app file: from TOML to what is meant, or what is wrong with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::keys::nearest;
use super::problem::Wrong;

/// The longest text that is repeated in a message, in characters.
const SHOWN: usize = 60;

/// What stands there, for people.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", shown(text)),
        DeValue::Integer(number) => format!("the number {}", shorten(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", shorten(number.as_str())),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A text in quotes, escaped and shortened.
pub(super) fn shown(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(SHOWN).collect::<String>())
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Any text without control characters.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Wrong> {
    let DeValue::String(text) = value else {
        return Err(Wrong::new(format!("expected text, found {}", found(value)), "write it in quotes"));
    };
    match text.chars().find(|c| c.is_control()) {
        Some(bad) => {
            Err(Wrong::new(format!("{} has the control character {bad:?}", shown(text)), "take it out"))
        }
        None => Ok(text.clone().into_owned()),
    }
}

/// As [`text`], of which an empty one means the default.
pub(super) fn optional_text(value: &DeValue<'_>) -> Result<Option<String>, Wrong> {
    text(value).map(|text| Some(text).filter(|text| !text.is_empty()))
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, Wrong> {
    match value {
        DeValue::Boolean(flag) => Ok(*flag),
        other => Err(Wrong::new(
            format!("expected true or false, found {}", found(other)),
            "write it without quotes",
        )),
    }
}

/// A whole number within `range`.
pub(super) fn number(value: &DeValue<'_>, range: RangeInclusive<i64>) -> Result<i64, Wrong> {
    let (low, high) = (range.start(), range.end());
    let mend = format!("write a number from {low} to {high}");
    let DeValue::Integer(written) = value else {
        return Err(Wrong::new(format!("expected a whole number, found {}", found(value)), mend));
    };
    i64::from_str_radix(written.as_str(), written.radix())
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| Wrong::new(format!("{} is out of range", shorten(&written.to_string())), mend))
}

/// A TCP port.
pub(super) fn port(value: &DeValue<'_>) -> Result<u16, Wrong> {
    let DeValue::Integer(written) = value else {
        return Err(Wrong::new(
            format!("expected a port, found {}", found(value)),
            "write the number alone, without quotes",
        ));
    };
    i64::from_str_radix(written.as_str(), written.radix())
        .ok()
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| out_of_range(&written.to_string()))
}

fn out_of_range(port: &str) -> Wrong {
    Wrong::new(format!("port {} is out of range", shorten(port)), "ports go from 1 to 65535")
}

/// One listen address: a port on 127.0.0.1, or an address and a port.
pub(super) fn address(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    match value {
        DeValue::Integer(_) => port(value).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        DeValue::String(text) => address_in(text),
        other => Err(Wrong::new(
            format!("expected a port, or an address with a port, found {}", found(other)),
            "write 80, \"0.0.0.0:80\", or a list of them",
        )),
    }
}

fn address_in(text: &str) -> Result<SocketAddr, Wrong> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return Err(not_an_address(text));
    };
    if address.port() == 0 {
        return Err(out_of_range("0"));
    }
    if address.ip().is_multicast() || address.ip() == Ipv4Addr::BROADCAST {
        return Err(Wrong::new(
            format!("{text} is not an address of one host"),
            "listen on an address of this host",
        ));
    }
    Ok(address)
}

fn not_an_address(text: &str) -> Wrong {
    let message = format!("{} is not an address with a port", shown(text));
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    if port.parse::<u32>().is_ok_and(|port| port > u32::from(u16::MAX)) {
        return out_of_range(port);
    }
    let mend = match (host, port.parse::<u16>()) {
        ("", Ok(port)) if text.starts_with(':') => {
            format!("write \"0.0.0.0:{port}\" for every IPv4 address, or \"[::]:{port}\" for every address")
        }
        ("", Ok(port)) => format!("write {port} without quotes for 127.0.0.1:{port}"),
        ("localhost", Ok(port)) => format!("write \"127.0.0.1:{port}\""),
        (_, Ok(_)) => "write the address in numbers, as \"0.0.0.0:80\" or \"[::]:80\"".to_owned(),
        (_, Err(_)) => "write it with its port, as \"0.0.0.0:80\" or \"[::]:80\"".to_owned(),
    };
    Wrong::new(message, mend)
}

/// A list of what `item` reads.
pub(super) fn list<T>(
    value: &DeValue<'_>,
    of: &str,
    item: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    match value {
        DeValue::Array(values) => values.iter().map(|value| item(value.get_ref())).collect(),
        other => Err(Wrong::new(format!("expected a list of {of}, found {}", found(other)), "put it in [ ]")),
    }
}

/// A duration within `range`.
pub(super) fn duration(value: &DeValue<'_>, range: RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let example = "write for example \"500ms\", \"30s\" or \"2m\"";
    let written = match value {
        DeValue::String(written) => written,
        DeValue::Integer(number) => {
            let mend = format!("write \"{number}s\" if seconds are meant");
            return Err(Wrong::new(format!("a duration has a unit, found the number {number}"), mend));
        }
        other => return Err(Wrong::new(format!("expected a duration, found {}", found(other)), example)),
    };
    let Ok(duration) = humantime::parse_duration(written) else {
        return Err(Wrong::new(format!("{} is not a duration", shown(written)), example));
    };
    if range.contains(&duration) {
        return Ok(duration);
    }
    let wrong = if duration < *range.start() { "too short" } else { "too long" };
    let limit = |limit: &Duration| humantime::format_duration(*limit).to_string();
    Err(Wrong::new(
        format!("{written} is {wrong}"),
        format!("it goes from {} to {}", limit(range.start()), limit(range.end())),
    ))
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, Wrong> {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let known =
        format!("write {}", names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or "));
    let DeValue::String(written) = value else {
        return Err(Wrong::new(format!("expected one of a few words, found {}", found(value)), known));
    };
    words.iter().find(|(name, _)| name == written).map(|(_, meant)| *meant).ok_or_else(|| {
        let mend = match nearest(written, &names) {
            Some(near) => format!("did you mean {near:?}?"),
            None => known,
        };
        Wrong::new(format!("{} is not known here", shown(written)), mend)
    })
}

/// The name of a user of this host; whether there is one, only the host knows.
pub(super) fn user(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = text(value)?;
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let right = name.len() <= 31
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(of_a_name);
    if right {
        return Ok(name);
    }
    let mend = if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        "write the user's name in place of its number"
    } else {
        "a user's name has up to 31 letters, digits, '_', '-' and '.', and starts with a letter or '_'"
    };
    Err(Wrong::new(format!("{} is not the name of a user", shown(&name)), mend))
}

/// systemd's `MemoryMax`: bytes with or without a unit, a percentage, or `infinity`.
pub(super) fn memory_max(value: &DeValue<'_>) -> Result<String, Wrong> {
    let written = match value {
        DeValue::Integer(number) => number.as_str().to_owned(),
        other => text(other)?,
    };
    if written == "infinity" {
        return Ok(written);
    }
    if let Some(percent) = written.strip_suffix('%') {
        let right = percent.parse::<u8>().is_ok_and(|percent| (1..=100).contains(&percent));
        return right.then_some(written.clone()).ok_or_else(|| {
            Wrong::new(
                format!("{} is not a part of the memory", shown(&written)),
                "it goes from \"1%\" to \"100%\"",
            )
        });
    }
    let Some(bytes) = bytes_in(&written) else {
        return Err(Wrong::new(
            format!("{} is not an amount of memory", shown(&written)),
            "write for example \"512M\", \"2G\", \"25%\" or \"infinity\"",
        ));
    };
    if bytes < 1 << 20 {
        return Err(Wrong::new(
            format!("{bytes} bytes are too few for any program"),
            "give it a unit, for example \"512M\"",
        ));
    }
    Ok(written)
}

fn bytes_in(written: &str) -> Option<u64> {
    let (digits, shift) = match written.strip_suffix(['K', 'M', 'G', 'T']) {
        Some(digits) => (digits, 10 * (1 + "KMGT".find(written.chars().last()?)?)),
        None => (written, 0),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| plain)?;
    number.checked_mul(1 << shift)
}
