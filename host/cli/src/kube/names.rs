//! What Kubernetes takes for a name, a key or a path (k8s.io/apimachinery `pkg/util/validation`).

pub(super) const DNS_RULE: &str =
    "use at most 63 characters of a-z, 0-9 and -, beginning and ending with a letter or digit";

pub(super) fn is_dns_label(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

pub(super) fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

pub(super) const KEY_RULE: &str = "use at most 253 letters, digits, -, _ and ., and no \"..\" at the beginning";

/// Of a ConfigMap or Secret.
pub(super) fn is_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 253
        && key != "."
        && !key.starts_with("..")
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Of an environment variable, as Kubernetes 1.34 and later have it.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

pub(super) fn is_mount_point(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().any(|b| b != b'/')
        && !path.contains('\0')
        && !path.split('/').any(|part| part == "..")
}

/// Below a volume.
pub(super) fn is_sub_path(path: &str) -> bool {
    !path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_file_name_that_stays_where_it_is_put() {
        for good in ["a", "nginx.conf", "A_b-1", ".hidden", "a..b", &"k".repeat(253)] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", ".", "..", "..data", "a/b", "a b", "ä", "a\0", &"k".repeat(254)] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn a_sub_path_is_relative_and_does_not_climb() {
        assert!(is_sub_path("a/b..c") && is_sub_path("..."));
        assert!(!is_sub_path("/a") && !is_sub_path("a/..") && !is_sub_path("a\0"));
    }
}
