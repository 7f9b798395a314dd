//! Names of directory entries, as a client may send them.

use std::ffi::CStr;

use rustix::io::Errno;

/// Longest name in bytes (`NAME_MAX`).
pub(crate) const MAX: usize = 255;

/// One component of a path: not empty, no slash, neither `.` nor `..`, at most [`MAX`] bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'b>(&'b CStr);

impl<'b> Name<'b> {
    pub(crate) fn new(text: &'b CStr) -> Result<Self, Errno> {
        let bytes = text.to_bytes();
        if bytes.len() > MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(Self(text))
    }

    pub(crate) fn as_c_str(self) -> &'b CStr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        for text in [c"", c".", c"..", c"a/b", c"/", c"../etc", c"a/"] {
            assert_eq!(Name::new(text).unwrap_err(), Errno::INVAL, "{text:?}");
        }
        let long = std::ffi::CString::new(vec![b'a'; 256]).unwrap();
        assert_eq!(Name::new(&long).unwrap_err(), Errno::NAMETOOLONG);
        for text in [c"..data", c"...", c"a b", c"\xff\xfe"] {
            assert!(Name::new(text).is_ok(), "{text:?}");
        }
    }
}
