//! TensorBoard event files, for those who watch their runs with it.
//!
//! What such a file is: records, each with a checksum, of the protocol buffer `Event`. Only scalars
//! are written, so a writer of four fields and a reader of one, for resuming, are all there is to
//! it; a crate for it would bring a generator of protocol buffers and an image library.
//!
//! | what | look at |
//! |---|---|
//! | a record's frame and checksum | `frame` |
//! | the bytes of an event | `event` |
//! | a run's file, cut back on resume | [`EventLog`] |

mod event;
mod frame;
mod log;

pub use log::{EventLog, FOLDER};

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{event, frame};

    /// `tests/fixtures/tensorboard/generate.py` writes what the tensorboard package writes.
    #[test]
    fn records_are_tensorboards_byte_for_byte() {
        let text = include_str!("../../../tests/fixtures/tensorboard/expected.json");
        let expected: Value = serde_json::from_str(text).unwrap();
        let hex =
            |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let time = |of: &Value| of["wall_time"].as_f64().unwrap();
        let version = &expected["version"];
        assert_eq!(
            hex(frame::framed(&event::version(time(version)))),
            version["record"].as_str().unwrap()
        );
        for expected in expected["events"].as_array().unwrap() {
            let values: Vec<(String, f64)> =
                serde_json::from_value(expected["values"].clone()).unwrap();
            let step = expected["step"].as_u64().unwrap() as usize;
            let record = frame::framed(&event::scalars(time(expected), step, &values));
            assert_eq!(hex(record), expected["record"].as_str().unwrap(), "{step}");
        }
    }
}
