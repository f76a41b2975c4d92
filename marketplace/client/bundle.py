"""The offline bundle of a receipt, under the name the SDK gives it."""

from marketplace.protocol.bundle import VERSION, Bundle, Settlement, decode_base64, signed_message

__all__ = ["VERSION", "Bundle", "Settlement", "decode_base64", "signed_message"]
