//! Which URL is asked after a failure.
//!
//! One *incident* is a failed request and the fallbacks tried for it. A fallback that answers is
//! the primary for the rest of the session: later incidents begin with it (FBK-03).

use serde::{Deserialize, Serialize};

use crate::directory::{ErrorClass, Fallback};
use crate::error_code;

/// The fallbacks of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fallbacks {
    /// In order, as configured when the session began.
    pub list: Vec<Fallback>,
    /// The one that is primary now, if one has answered.
    pub taken: Option<usize>,
}

impl Fallbacks {
    /// The next fallback for an error, beginning with index `from` of this incident.
    /// `failed_url` is not asked again.
    pub fn next(&self, code: u32, from: Option<usize>, failed_url: &str) -> Option<usize> {
        let class = if error_code::is_communication(code) {
            ErrorClass::Communication
        } else {
            ErrorClass::Document
        };
        let start = from.or(self.taken).unwrap_or(0);
        (start..self.list.len()).find(|index| {
            self.list.get(*index).is_some_and(|fallback| {
                (fallback.classes.is_empty() || fallback.classes.contains(&class))
                    && fallback.target.url != failed_url
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::UrlMethod;
    use crate::io::Method;

    fn fallback(url: &str, classes: &[ErrorClass]) -> Fallback {
        let target = UrlMethod { url: url.to_owned(), method: Method::Post };
        Fallback { target, classes: classes.to_vec() }
    }

    #[test]
    fn fbk_01_fallbacks_are_asked_in_order_and_by_class() {
        let mut all = Fallbacks {
            list: vec![
                fallback("a", &[ErrorClass::Document]),
                fallback("b", &[]),
                fallback("c", &[ErrorClass::Communication]),
            ],
            taken: None,
        };
        assert_eq!(all.next(11205, None, "x"), Some(1));
        assert_eq!(all.next(12100, None, "x"), Some(0));
        assert_eq!(all.next(12100, Some(1), "x"), Some(1));
        assert_eq!(all.next(11205, Some(2), "x"), Some(2));
        assert_eq!(all.next(11205, Some(3), "x"), None);
        all.taken = Some(1);
        assert_eq!(all.next(11205, None, "x"), Some(1), "the one taken is primary");
        assert_eq!(all.next(11205, None, "b"), Some(2), "but not after its own failure");
    }
}
