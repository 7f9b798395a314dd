//! `$(NAME)` in `command`, `args` and `env`, by the rules of k8s.io/kubernetes `third_party/forked/golang/expansion`:
//! a known name is replaced, an unknown one is left as it stands, `$$` is a `$` that begins nothing.

/// `input` with every reference to a name that `lookup` knows replaced.
pub(crate) fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            tail
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            tail
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    out
}

/// The value of `name` in an environment.
pub(crate) fn find(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
            "EMPTY" => Some(String::new()),
            "REF" => Some("$(A)".into()),
            _ => None,
        }
    }

    #[test]
    fn the_cases_of_the_kubernetes_expansion_test() {
        for (input, output) in [
            ("$(A)", "a"),
            ("___$(A)___", "___a___"),
            ("$(A)$(A)", "aa"),
            ("$(EMPTY)x", "x"),
            ("$(REF)", "$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$A", "$A"),
            ("$", "$"),
            ("foo$", "foo$"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("$(A)$", "a$"),
            ("\n$(A)\n", "\na\n"),
            ("$(NONE$(A))", "$(NONE$(A))"),
        ] {
            assert_eq!(expand(input, lookup), output, "{input}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_unchanged(text in "[^$]*") {
            prop_assert_eq!(expand(&text, lookup), text);
        }

        #[test]
        fn any_text_expands(text in "[$()AB]{0,30}") {
            let _ = expand(&text, lookup);
        }
    }
}
