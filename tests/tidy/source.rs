//! Rust source as the rules see it: where it belongs, and its code without comments, strings and tests.

/// A file below `src/`.
pub struct Source {
    /// Its path below `src/`, without the ending: `routing/tcp`.
    pub path: String,
    /// All of it.
    pub text: String,
    /// Its code: comments and the insides of strings are blank, tests are gone.
    pub code: String,
    /// Whether it says `#[cfg(test)]` about something other than `mod tests`.
    pub hides_something_in_tests: bool,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let path = path.trim_end_matches(".rs").to_owned();
        let is_test = path.ends_with("/tests");
        let (code, hides_something_in_tests) = without_tests(&blank(text));
        let code = if is_test { String::new() } else { code };
        Source { path, text: text.to_owned(), code, hides_something_in_tests }
    }

    /// Whether it is this module's file or below its folder.
    pub fn is_in(&self, module: &str) -> bool {
        self.path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether its code has this word.
    pub fn says(&self, word: &str) -> bool {
        self.positions(word).next().is_some()
    }

    /// Lines that are neither blank nor comment nor test.
    pub fn lines_of_code(&self) -> usize {
        self.code.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// The modules that it names, each from the root of the crate: `routing::tcp::Accept`.
    pub fn names(&self) -> Vec<String> {
        let here: Vec<&str> = if self.path == "main" { Vec::new() } else { self.path.split('/').collect() };
        let mut names = Vec::new();
        for root in ["crate", "dorc", "super"] {
            for start in self.positions(root) {
                let mut rest = &self.code[start + root.len()..];
                let mut base =
                    if root == "super" { &here[..here.len().saturating_sub(1)] } else { &here[..0] };
                while let Some(further) = rest.trim_start().strip_prefix("::super") {
                    base = &base[..base.len().saturating_sub(1)];
                    rest = further;
                }
                // The second and later `super` of a path were read with the first one.
                let is_first = !self.code[..start].trim_end().ends_with("::");
                if let Some(path) = rest.strip_prefix("::").filter(|_| is_first) {
                    names.extend(branches(path).map(|branch| join(base, &branch)));
                }
            }
        }
        names
    }

    fn positions(&self, word: &str) -> impl Iterator<Item = usize> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(word).map(|(start, _)| start).filter(move |start| {
            let before = self.code[..*start].chars().next_back();
            let after = self.code[start + word.len()..].chars().next();
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    }
}

fn join(base: &[&str], branch: &str) -> String {
    base.iter().copied().chain([branch]).collect::<Vec<_>>().join("::")
}

/// `a::{b::C, d}` names `a::b::C` and `a::d`.
fn branches(path: &str) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    let mut prefixes: Vec<String> = vec![String::new()];
    let mut name = String::new();
    for c in path.chars() {
        let prefix = prefixes.last().map(String::as_str).unwrap_or_default();
        match c {
            '{' => {
                prefixes.push(format!("{prefix}{name}"));
                name.clear();
                continue;
            }
            ',' | '}' if prefixes.len() > 1 => {
                if !name.is_empty() {
                    found.push(format!("{prefix}{name}"));
                }
                name.clear();
                if c == '}' {
                    prefixes.pop();
                }
            }
            _ if c.is_alphanumeric() || c == '_' || c == ':' => name.push(c),
            _ if c.is_whitespace() && prefixes.len() > 1 => {}
            _ => break,
        }
        if prefixes.len() == 1 && c == '}' {
            break;
        }
    }
    if !name.is_empty() {
        found.push(name);
    }
    found.into_iter()
}

/// The code without what `#[cfg(test)]` stands before, and whether that was ever something other than `mod tests`.
fn without_tests(code: &str) -> (String, bool) {
    const MARK: &str = "#[cfg(test)]";
    let (mut kept, mut rest, mut hides) = (String::new(), code, false);
    while let Some(start) = rest.find(MARK) {
        kept.push_str(&rest[..start]);
        let item = &rest[start + MARK.len()..];
        hides |= !item.trim_start().starts_with("mod tests");
        rest = &item[end_of_item(item)..];
    }
    kept.push_str(rest);
    (kept, hides)
}

fn end_of_item(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// The text with comments and the insides of strings and characters turned into spaces; lines stay lines.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = comment(rest).or_else(|| string(rest)).or_else(|| character(rest));
        // A raw string starts with a letter, and so may a name that ends in one.
        let is_within_a_name = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        match length.filter(|_| !(is_within_a_name && c.is_alphabetic())) {
            Some(length) => {
                code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                rest = &rest[length..];
            }
            None => {
                code.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    code
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let (step, change) = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth = depth.saturating_add_signed(change);
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

fn string(rest: &str) -> Option<usize> {
    let opening = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - opening.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = opening.strip_prefix('r') {
        let body = raw.trim_start_matches('#');
        let hashes = raw.len() - body.len();
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = body.strip_prefix('"')?;
        let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
        return Some(prefix + 1 + hashes + 1 + length);
    }
    let inside = opening.strip_prefix('"')?;
    let mut escaped = false;
    let end = inside.find(|c| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    Some(prefix + 1 + end.map_or(inside.len(), |at| at + 1))
}

/// A character literal, and not a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        return escape[1..].find('\'').map(|at| at + 4);
    }
    let c = inside.chars().next()?;
    inside[c.len_utf8()..].starts_with('\'').then(|| c.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_tests_are_no_code() {
        let text = "//! serde\nfn a<'a>(x: &'a str) { /* serde /* serde */ */ b(\"serde \\\" serde\", r#\"serde\"#, '\"', '\\''); }\n\
                    #[cfg(test)]\nmod tests {\n fn c() { serde(); }\n}\nfn d() {}\n";
        let source = Source::new("a.rs", text);
        assert!(!source.says("serde"), "{}", source.code);
        assert!(source.says("b") && source.says("d"), "{}", source.code);
        assert_eq!(source.lines_of_code(), 2);
        assert!(!source.hides_something_in_tests);
    }

    #[test]
    fn words_are_whole_words() {
        let source = Source::new("a.rs", "use serde_json::x; let my_serde = r#type;");
        assert!(!source.says("serde"));
        assert!(source.says("serde_json"));
    }

    #[test]
    fn names_are_read_from_the_root() {
        let text = "use crate::model::app::App;\nuse crate::{state, services::{self, unit::Unit}};\n\
                    fn f(x: crate::health::Probe) -> super::Target { super::super::daemon::run() }";
        let mut names = Source::new("routing/tcp.rs", text).names();
        names.sort();
        let expected = [
            "daemon::run",
            "health::Probe",
            "model::app::App",
            "routing::Target",
            "services::self",
            "services::unit::Unit",
            "state",
        ];
        assert_eq!(names, expected);
    }
}
