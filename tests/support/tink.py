"""Google's Tink, driven with a key of ours: the outside program that must read and write our streams."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import tink
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, tink_pb2

if TYPE_CHECKING:
    from tink.streaming_aead import StreamingAead


def tink_streaming(key: bytes) -> StreamingAead:
    """Give Tink's own AES256_GCM_HKDF_1MB, holding `key`."""
    streaming_aead.register()
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    chosen = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKeyFormat.FromString(template.value)
    held = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(version=0, params=chosen.params, key_value=key)
    keyset = tink_pb2.Keyset(
        primary_key_id=1,
        key=[
            tink_pb2.Keyset.Key(
                key_data=tink_pb2.KeyData(
                    type_url=template.type_url,
                    value=held.SerializeToString(),
                    key_material_type=tink_pb2.KeyData.SYMMETRIC,
                ),
                status=tink_pb2.ENABLED,
                key_id=1,
                output_prefix_type=tink_pb2.RAW,
            ),
        ],
    )
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


def tink_seal(key: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """Seal with Tink."""
    sink = _Kept()
    with tink_streaming(key).new_encrypting_stream(sink, associated_data) as stream:
        stream.write(plaintext)
    return sink.written


def tink_open(key: bytes, sealed: bytes, associated_data: bytes) -> bytes:
    """Open with Tink; raises tink.TinkError where it does not open."""
    with tink_streaming(key).new_decrypting_stream(io.BytesIO(sealed), associated_data) as stream:
        return stream.read()


class _Kept(io.BytesIO):
    written = b""

    def close(self) -> None:
        self.written = self.getvalue()
        super().close()
