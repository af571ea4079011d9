//! Values of arguments that are more than a word or a number, read or refused with what to write. Main thread, before
//! anything else; pure.

use rules::Override;

pub(super) fn parameter(text: &str) -> Result<Override, String> {
    let form = "write RULE.PARAM=VALUE, for example rst_after_idle.idle_ms=30000";
    let (name, value) = text.split_once('=').ok_or(form)?;
    let (rule, param) = name.trim().rsplit_once('.').ok_or(form)?;
    if rule.is_empty() || param.is_empty() {
        return Err(form.to_owned());
    }
    Ok(Override { rule: rule.to_owned(), param: param.to_owned(), value: value.trim().to_owned() })
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    if (0.001..=1e9).contains(&value) { Ok(value) } else { Err("give 0.001 to 1000000000 seconds".into()) }
}

pub(super) fn community_id(text: &str) -> Result<String, String> {
    // "1:" and the base64 of the 20 bytes of a SHA-1 sum.
    let sum = text.strip_prefix("1:").filter(|sum| sum.len() == 28 && sum.ends_with('='));
    let letters = |sum: &str| sum.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
    let form = "a Community ID is 1: and 28 letters and digits, as --flows shows it";
    sum.filter(|sum| letters(sum)).map(|_| text.to_owned()).ok_or_else(|| form.to_owned())
}

pub(super) fn flow_id(text: &str) -> Result<u64, String> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    id.ok_or_else(|| "a flow id has 16 hexadecimal digits, as --flows and `captures list` show it".to_owned())
}

/// The name of an interface, which may be none that is there.
pub fn interface(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '/') {
        true => Err("give the name of an interface; ip -brief link lists those there are".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_apart() {
        let set = |rule: &str, param: &str, value: &str| {
            Ok(Override { rule: rule.into(), param: param.into(), value: value.into() })
        };
        assert_eq!(parameter("a.b=c"), set("a", "b", "c"));
        assert_eq!(parameter("a.b = x=y.z"), set("a", "b", "x=y.z"));
        for wrong in ["", "a", "a.b", "a=b", ".b=1", "a.=1"] {
            assert!(parameter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn community_ids_are_a_version_and_a_sum() {
        assert!(community_id("1:LQU9qZlK+B5F3KDmev6m5PMibrg=").is_ok());
        for wrong in [
            "",
            "1:",
            "LQU9qZlK+B5F3KDmev6m5PMibrg=",
            "1:LQU9qZlK B5F3KDmev6m5PMibrg=",
            "2:LQU9qZlK+B5F3KDmev6m5PMibrg=",
        ] {
            assert!(community_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn flow_ids_are_16_digits() {
        assert_eq!(flow_id("00000000000000fF"), Ok(255));
        for wrong in ["ff", "+0000000000000ff", "00000000000000fg", "000000000000000ff"] {
            assert!(flow_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn interfaces_have_names() {
        assert_eq!(interface("eth0.5"), Ok("eth0.5".to_owned()));
        for wrong in ["", " ", "eth 0", "../lo"] {
            assert!(interface(wrong).unwrap_err().contains("ip -brief link"), "{wrong}");
        }
    }
}
