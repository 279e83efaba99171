//! The environment file of a service.

use crate::model::app::Service;

use super::escape::{UnitError, breaks_a_line, head};

/// The longest value that the kernel hands to a program, with room for its name.
const MAX_VALUE: usize = 120_000;

/// Writes the environment of `service` as systemd's `EnvironmentFile=` reads it. Values may have several lines.
///
/// # Errors
/// A name or value that systemd would drop or change.
pub fn environment(service: &Service) -> Result<String, UnitError> {
    let mut text = format!(
        "# dorc wrote this file and writes it again at each start of {}: changes made here get lost.\n",
        service.id
    );
    for (name, value) in &service.env {
        check(name, value)?;
        text += name;
        text += "=\"";
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '`' | '$') {
                text.push('\\');
            }
            text.push(c);
        }
        text += "\"\n";
    }
    Ok(text)
}

fn check(name: &str, value: &str) -> Result<(), UnitError> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(first) || !name.chars().all(|c| first(c) || c.is_ascii_digit()) {
        let wanted = "it has only letters, digits and '_', and starts with no digit";
        return Err(UnitError::malformed("an environment variable's name", name, wanted));
    }
    if value.chars().any(|c| breaks_a_line(c) && !matches!(c, '\t' | '\n')) {
        return Err(UnitError::Control {
            what: format!("the environment variable {name}"),
            text: value.into(),
        });
    }
    if value.len() > MAX_VALUE {
        return Err(UnitError::malformed(
            &format!("the environment variable {name}"),
            &head(value),
            "it is too long",
        ));
    }
    Ok(())
}
