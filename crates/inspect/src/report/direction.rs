//! The direction of bytes as reports write it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use waylay_relay::Direction;

#[derive(Serialize, Deserialize)]
#[serde(remote = "Direction", rename_all = "kebab-case")]
enum Written {
    ToDestination,
    ToApplication,
}

#[derive(Serialize, Deserialize)]
struct Field(#[serde(with = "Written")] Direction);

pub(super) fn serialize<S: Serializer>(direction: &Option<Direction>, to: S) -> Result<S::Ok, S::Error> {
    direction.map(Field).serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Direction>, D::Error> {
    let field = Option::<Field>::deserialize(from)?;
    Ok(field.map(|Field(direction)| direction))
}
