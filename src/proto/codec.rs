//! The codec of the generated services: protobuf that cannot be decoded is a malformed request; but a
//! text that is no UTF-8 never hides an emergency number.

use std::any::TypeId;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{decode_varint, encode_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder};

use crate::proto::v1::AuthorizeCallRequest;

/// What stands for an invalid sequence: SUB, a control character, which the checks of fields refuse.
const SUBSTITUTE: char = '\u{1a}';

/// Numbers of the string fields of [`AuthorizeCallRequest`].
const STRINGS: &[u32] = &[1, 2, 4, 5, 6, 7, 10, 11, 12, 13];

/// Number of its map from string to string, whose entries have the strings [`ENTRY_STRINGS`].
const LABELS: u32 = 16;
const ENTRY_STRINGS: &[u32] = &[1, 2];

/// [`ProstCodec`], but bytes that are no message are INVALID_ARGUMENT where it answers INTERNAL: the
/// fault is the sender's, and only INTERNAL is an alarm.
#[derive(Debug, Clone)]
pub struct StrictCodec<T, U>(ProstCodec<T, U>);

/// The decoder of [`StrictCodec`].
#[derive(Debug, Clone)]
pub struct StrictDecoder<U>(ProstDecoder<U>);

impl<T, U> Default for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(self.0.decoder())
    }
}

impl<U: Message + Default + 'static> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        let decoded = U::decode(bytes.clone()).or_else(|error| {
            let rewritten = match TypeId::of::<U>() == TypeId::of::<AuthorizeCallRequest>() {
                true => with_utf8(&bytes, STRINGS, Some(LABELS)),
                false => None,
            };
            rewritten.and_then(|bytes| U::decode(&*bytes).ok()).ok_or(error)
        });
        decoded.map(Some).map_err(|error| {
            Status::invalid_argument(format!("expected a protobuf message: {error}"))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// The message with [`SUBSTITUTE`]s in its `strings`, and in those of its `map`, where they are no UTF-8;
/// `None` where it is cut off, or has groups, which no version of the API had. Never longer than it was.
///
/// A caller's name in Latin-1 must not make a call to 911 undecodable; of any other call the field is
/// refused by its name.
fn with_utf8(mut message: &[u8], strings: &[u32], map: Option<u32>) -> Option<Vec<u8>> {
    const WIRE_TYPE_BITS: u64 = 0b111;
    let mut out = Vec::with_capacity(message.len());
    while message.has_remaining() {
        let key = decode_varint(&mut message).ok()?;
        encode_varint(key, &mut out);
        let field = u32::try_from(key >> 3).ok()?;
        let bytes = match key & WIRE_TYPE_BITS {
            0 => {
                encode_varint(decode_varint(&mut message).ok()?, &mut out);
                continue;
            }
            1 => 8,
            5 => 4,
            2 => {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                let value = message.get(..length)?;
                message.advance(length);
                let value = if strings.contains(&field) {
                    substituted(value)
                } else if map == Some(field) {
                    with_utf8(value, ENTRY_STRINGS, None)?
                } else {
                    value.to_vec()
                };
                encode_varint(value.len() as u64, &mut out);
                out.extend(value);
                continue;
            }
            _ => return None,
        };
        out.extend(message.get(..bytes)?);
        message.advance(bytes);
    }
    Some(out)
}

fn substituted(text: &[u8]) -> Vec<u8> {
    let mut valid = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        valid.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            valid.push(SUBSTITUTE);
        }
    }
    valid.into_bytes()
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;
    use prost_types::field_descriptor_proto::Type;

    use super::*;
    use crate::proto::FILE_DESCRIPTOR_SET;

    #[test]
    fn every_string_of_an_authorize_is_known() {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors").file;
        let messages = files.iter().flat_map(|file| &file.message_type);
        let of = messages.into_iter().find(|m| m.name() == "AuthorizeCallRequest");
        let fields = &of.expect("the message").field;
        let numbers = |of| {
            let fields = fields.iter().filter(move |field| field.r#type() == of);
            fields.map(|field| field.number() as u32)
        };
        assert!(numbers(Type::String).eq(STRINGS.iter().copied()));
        let maps = fields.iter().filter(|field| field.type_name().ends_with("Entry"));
        assert!(maps.map(|field| field.number() as u32).eq([LABELS]));
        assert_eq!(numbers(Type::Group).count(), 0);
    }

    #[test]
    fn what_is_no_utf8_is_substituted_and_all_else_stays() {
        let labels = [("k".to_owned(), "v".to_owned())].into();
        let request = AuthorizeCallRequest {
            tenant_id: "contoso".to_owned(),
            calling_number: "né12".to_owned(),
            requested_duration: Some(prost_types::Duration { seconds: 300, nanos: 5 }),
            reports_answer: true,
            attempt: 3,
            labels,
            ..AuthorizeCallRequest::default()
        };
        let bytes = request.encode_to_vec();
        assert_eq!(with_utf8(&bytes, STRINGS, Some(LABELS)), Some(bytes.clone()));
        for cut in 1..bytes.len() {
            // Never panics; what is cut within a field is no message.
            with_utf8(&bytes[..cut], STRINGS, Some(LABELS));
        }
        let at = bytes.windows(2).position(|pair| pair == "é".as_bytes()).expect("the é");
        let latin_1 = [&bytes[..at], &[0xff, 0xfe], &bytes[at + 2..]].concat();
        let rewritten = with_utf8(&latin_1, STRINGS, Some(LABELS)).expect("a message");
        let expected =
            AuthorizeCallRequest { calling_number: "n\u{1a}\u{1a}12".to_owned(), ..request };
        assert_eq!(AuthorizeCallRequest::decode(&*rewritten), Ok(expected));
    }
}
