//! The two colours a service can have.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::str::FromStr;

/// Which of an application's two services is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Colour {
    /// `blue-{app}`
    Blue,
    /// `green-{app}`
    Green,
}

impl Colour {
    /// Both colours, in the order in which they are shown.
    pub const BOTH: [Self; 2] = [Self::Blue, Self::Green];

    /// The colour that this one is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// The lower-case English name, as it stands in unit names and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Colour {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::BOTH.into_iter().find(|colour| colour.name() == text).ok_or(())
    }
}

/// One `T` for each colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByColour<T> {
    /// The one of the blue service.
    pub blue: T,
    /// The one of the green service.
    pub green: T,
}

impl<T> ByColour<T> {
    /// Makes the two values from their colours.
    pub fn from_fn(mut make: impl FnMut(Colour) -> T) -> Self {
        Self { blue: make(Colour::Blue), green: make(Colour::Green) }
    }
}

impl<T> Index<Colour> for ByColour<T> {
    type Output = T;

    fn index(&self, colour: Colour) -> &T {
        match colour {
            Colour::Blue => &self.blue,
            Colour::Green => &self.green,
        }
    }
}

impl<T> IndexMut<Colour> for ByColour<T> {
    fn index_mut(&mut self, colour: Colour) -> &mut T {
        match colour {
            Colour::Blue => &mut self.blue,
            Colour::Green => &mut self.green,
        }
    }
}
