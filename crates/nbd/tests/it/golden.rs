//! One session byte by byte, as `tests/golden/session.txt` has it: what clients depend on must not
//! change unseen.

use crate::support::Site;
use landfall_nbd::testing::MemoryExport;
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GOLDEN: &str = include_str!("../golden/session.txt");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("the golden file holds hexadecimal digits") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string can't fail");
        text
    })
}

#[tokio::test]
async fn a_session_is_what_the_golden_file_says() {
    let export = Arc::new(MemoryExport::new(65536, 512));
    export.store(0, &[0xa5; 512]);
    let site = Site::new("m/0@latest", export);
    let (mut client, theirs) = tokio::io::duplex(1 << 20);
    let server = site.server.clone();
    let serving = tokio::spawn(async move {
        let (reader, writer) = tokio::io::split(theirs);
        server.serve(reader, writer).await
    });
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (side, text) = line.split_once(' ').expect("a side and its bytes");
        let expected = bytes(text.split('#').next().unwrap_or_default());
        match side {
            "C" => client.write_all(&expected).await.expect("the server listens"),
            "S" => {
                let mut found = vec![0; expected.len()];
                client.read_exact(&mut found).await.expect("the server answers");
                assert_eq!(hex(&found), hex(&expected), "{line}");
            }
            other => panic!("{other} is no side"),
        }
    }
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("the server closes");
    assert_eq!(hex(&rest), "", "nothing follows");
    serving.await.expect("no panic").expect("a clean end");
}
