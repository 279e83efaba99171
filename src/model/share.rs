//! A share of the clients of an app.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A share of the clients, in parts of ten thousand: more than none and less than all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u16);

impl Share {
    /// All of them.
    pub const WHOLE: u16 = 10_000;

    /// That many of ten thousand; `None` where that is nobody, or everybody.
    #[must_use]
    pub const fn new(parts: u16) -> Option<Self> {
        if parts == 0 || parts >= Self::WHOLE { None } else { Some(Self(parts)) }
    }

    /// How many of ten thousand.
    #[must_use]
    pub const fn parts(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}%", self.0 / 100),
            hundredths => {
                let text = format!("{}.{hundredths:02}", self.0 / 100);
                write!(f, "{}%", text.trim_end_matches('0'))
            }
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a share; write for example \"10%\", more than 0% and less than 100%");
        let number = text.strip_suffix('%').ok_or_else(wrong)?;
        let (whole, hundredths) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(hundredths) {
            return Err(wrong());
        }
        let parts = format!("{whole}{hundredths:0<2}").parse().map_err(|_| wrong())?;
        Self::new(parts).ok_or_else(wrong)
    }
}

/// A step of a canary: the share that it gets, and for how long before the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How many of the clients.
    pub share: Share,
    /// For how long.
    pub time: Duration,
}

/// How a canary goes on: what it gets now, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The share of now.
    pub share: Share,
    /// For how long; `None`: until a user says otherwise.
    pub time: Option<Duration>,
    /// The steps after that; after the last one it gets everything.
    pub rest: Vec<Step>,
}

impl Plan {
    /// A share until a user says otherwise.
    #[must_use]
    pub const fn of(share: Share) -> Self {
        Self { share, time: None, rest: Vec::new() }
    }

    /// One step after the other; `None`: there is none.
    #[must_use]
    pub fn by(steps: &[Step]) -> Option<Self> {
        let (first, rest) = steps.split_first()?;
        Some(Self { share: first.share, time: Some(first.time), rest: rest.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_written() {
        for text in ["1%", "10%", "12.5%", "0.01%", "99.99%"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        for text in ["", "%", "0%", "0.00%", "100%", "10", "-1%", "1.234%", "1.%%", "ten%", "+5%", "1 %"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
