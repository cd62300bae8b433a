/// What an error asks of whoever handles it; retry, alarm and HTTP status look only at this.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Try again later: nothing is wrong for good.
    Transient,
    /// Trying again changes nothing; an operator must change something.
    Permanent,
    /// Data is not what was written: quarantine and alarm.
    Corrupt,
    /// Refused because authority has moved on: never retried.
    Fenced,
    /// A defect of Landfall itself.
    Bug,
}
