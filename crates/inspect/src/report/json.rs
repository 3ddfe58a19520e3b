//! JSON that may be shown on a terminal.

/// The same JSON, with every character escaped that could steer a terminal or hide text. JSON itself has only
/// those below U+0020 escaped, and terminals obey U+009B, say, as well.
///
/// # Example
///
/// ```
/// use waylay_inspect::report::harmless_json;
///
/// assert_eq!(harmless_json("[\"caf\u{e9}\u{9b}2J\"]"), "[\"caf\u{e9}\\u009b2J\"]");
/// ```
#[must_use]
pub fn harmless(json: &str) -> String {
    let mut harmless = String::with_capacity(json.len());
    for character in json.chars() {
        // Line feeds are between values only.
        if matches!(character, '"' | '\'' | '\\' | '\n') || character.escape_debug().nth(1).is_none() {
            harmless.push(character);
        } else {
            harmless.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_means_the_same() {
        let text = "\u{7f}\u{9b}\u{202e}\u{e0041}\u{1b}\\\"'caf\u{e9} \u{65e5}\n";
        let harmless = harmless(&serde_json::to_string(text).unwrap());
        assert!(
            harmless.chars().all(|character| !character.is_control() && character != '\u{202e}'),
            "{harmless}"
        );
        assert!(harmless.contains("caf\u{e9} \u{65e5}"));
        assert_eq!(serde_json::from_str::<String>(&harmless).unwrap(), text);
    }
}
