//! Pages of lists: an order, a limit, and a cursor that names the last item shown, so that items which come
//! or go meanwhile neither repeat nor hide others.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use honshu_domain::{Error, Result};

use crate::limits::{PAGE_DEFAULT, PAGE_MAX};

/// What a caller asks of a list.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// `limit`: items on a page.
    pub limit: Option<u32>,
    /// `page`: the cursor of `opc-next-page`.
    pub page: Option<String>,
    /// `sortBy`, such as `displayName` or `timeCreated`; case does not count.
    pub sort_by: Option<String>,
    /// `sortOrder`: `ASC` or `DESC`.
    pub sort_order: Option<String>,
}

/// One page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// For `opc-next-page`; `None` on the last page, when the header must be left out.
    pub next_page: Option<String>,
}

impl<T> Page<T> {
    /// The same page of other items.
    pub(crate) fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(change).collect(),
            next_page: self.next_page,
        }
    }
}

/// What items are sorted by: a name (in any case) or a time, then a name, then the id.
pub struct SortKey {
    /// The name; its case does not count.
    pub name: String,
    /// The time in microseconds since the epoch.
    pub created_us: i64,
    /// The id.
    pub id: String,
}

type Place = (String, String, String);

impl PageRequest {
    /// Sorts `items` and cuts the asked page. The default is by time, newest first (OCI API reference);
    /// names go up.
    ///
    /// # Errors
    /// 400 for a limit, cursor or order that is none.
    pub fn cut<T>(&self, items: Vec<T>, key: impl Fn(&T) -> SortKey) -> Result<Page<T>> {
        let limit = match self.limit {
            None => PAGE_DEFAULT,
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=PAGE_MAX).contains(limit))
                .ok_or_else(|| Error::invalid_at("limit", format!("must be 1 to {PAGE_MAX}")))?,
        };
        let by_time = match self
            .sort_by
            .as_deref()
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None | Some("timecreated") => true,
            Some("displayname" | "name") => false,
            Some(_) => {
                return Err(Error::invalid_at(
                    "sortBy",
                    "must be a name (`displayName`, `name`) or `timeCreated`",
                ));
            }
        };
        let down = match self
            .sort_order
            .as_deref()
            .map(str::to_ascii_uppercase)
            .as_deref()
        {
            None => by_time,
            Some("ASC") => false,
            Some("DESC") => true,
            Some(_) => return Err(Error::invalid_at("sortOrder", "must be `ASC` or `DESC`")),
        };
        let place = |item: &T| -> Place {
            let key = key(item);
            let name = key.name.to_lowercase();
            if by_time {
                (format!("{:020}", key.created_us.max(0)), name, key.id)
            } else {
                (name, String::new(), key.id)
            }
        };
        let order = |left: &Place, right: &Place| {
            let first = left.0.cmp(&right.0);
            let first = if down { first.reverse() } else { first };
            first.then_with(|| (&left.1, &left.2).cmp(&(&right.1, &right.2)))
        };
        let mut placed: Vec<(Place, T)> =
            items.into_iter().map(|item| (place(&item), item)).collect();
        placed.sort_by(|left, right| order(&left.0, &right.0));
        if let Some(page) = &self.page {
            let after = read_cursor(page)?;
            placed.retain(|(place, _)| order(place, &after).is_gt());
        }
        let more = placed.len() > limit;
        placed.truncate(limit);
        let next_page = match placed.last() {
            Some((place, _)) if more => Some(write_cursor(place)?),
            _ => None,
        };
        Ok(Page {
            items: placed.into_iter().map(|(_, item)| item).collect(),
            next_page,
        })
    }
}

fn write_cursor(place: &Place) -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).map_err(Error::internal)?))
}

fn read_cursor(page: &str) -> Result<Place> {
    URL_SAFE_NO_PAD
        .decode(page)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| Error::invalid_at("page", "is not a page token of this list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<(&'static str, i64)> {
        vec![("b", 1), ("A", 2), ("c", 2), ("d", 3)]
    }

    fn walk(mut request: PageRequest) -> Vec<&'static str> {
        let mut names = Vec::new();
        loop {
            let page = request
                .cut(items(), |(name, at)| SortKey {
                    name: (*name).to_owned(),
                    created_us: *at,
                    id: (*name).to_owned(),
                })
                .unwrap();
            names.extend(page.items.iter().map(|(name, _)| *name));
            match page.next_page {
                Some(next) => request.page = Some(next),
                None => return names,
            }
        }
    }

    #[test]
    fn every_order_shows_each_item_once_whatever_the_page_size() {
        for limit in 1..6 {
            let sorted = |by: Option<&str>, order: Option<&str>| {
                walk(PageRequest {
                    limit: Some(limit),
                    page: None,
                    sort_by: by.map(str::to_owned),
                    sort_order: order.map(str::to_owned),
                })
            };
            assert_eq!(sorted(None, None), ["d", "A", "c", "b"]);
            assert_eq!(
                sorted(Some("timeCreated"), Some("ASC")),
                ["b", "A", "c", "d"]
            );
            assert_eq!(sorted(Some("DISPLAYNAME"), None), ["A", "b", "c", "d"]);
            assert_eq!(sorted(Some("name"), Some("desc")), ["d", "c", "b", "A"]);
        }
    }

    #[test]
    fn nonsense_is_refused_by_its_field() {
        let cut = |request: PageRequest| {
            let result = request.cut(items(), |(name, at)| SortKey {
                name: (*name).to_owned(),
                created_us: *at,
                id: (*name).to_owned(),
            });
            result.unwrap_err().param().unwrap().to_owned()
        };
        let base = PageRequest::default;
        assert_eq!(
            cut(PageRequest {
                limit: Some(0),
                ..base()
            }),
            "limit"
        );
        assert_eq!(
            cut(PageRequest {
                limit: Some(1_001),
                ..base()
            }),
            "limit"
        );
        assert_eq!(
            cut(PageRequest {
                page: Some("x y".into()),
                ..base()
            }),
            "page"
        );
        assert_eq!(
            cut(PageRequest {
                sort_by: Some("color".into()),
                ..base()
            }),
            "sortBy"
        );
        assert_eq!(
            cut(PageRequest {
                sort_order: Some("up".into()),
                ..base()
            }),
            "sortOrder"
        );
    }
}
