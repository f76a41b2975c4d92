// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title Who signed a digest
/// @notice Plain ECDSA with low `s`, as 65 bytes (r, s, v) or 64 bytes (EIP-2098). Anything else was signed by nobody.
library Signatures {
    /// @notice Finds who signed.
    /// @param digest EIP-712 digest of the message.
    /// @param signature 65 or 64 bytes.
    /// @return signer 0 when the signature is malformed, has a high `s` or recovers to nobody.
    function signerOf(bytes32 digest, bytes calldata signature) internal pure returns (address signer) {
        (uint8 v, bytes32 r, bytes32 s) = ECDSA.parseCalldata(signature);
        (signer,,) = ECDSA.tryRecover(digest, v, r, s);
    }
}
