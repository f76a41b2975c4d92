// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";

/// @title Who signed a digest, and whether a node is on a list
/// @notice Plain ECDSA with low `s`, as 65 bytes (r, s, v) or 64 bytes (EIP-2098). Anything else was signed by nobody.
library Signatures {
    uint256 private constant _WORD = 32;
    uint256 private constant _SHORT_BYTES = 64;
    uint256 private constant _LONG_BYTES = 65;

    /// @notice Asks a contract whether it accepts a signature, by ERC-1271.
    /// @dev Bounds what a hostile contract can burn, and reads one word of whatever it answers.
    /// @param signer Contract to ask. Without code nothing is accepted.
    /// @param digest EIP-712 digest of the message.
    /// @param signature Whatever the contract takes.
    /// @param gasLimit Gas it gets.
    /// @return Whether it answered with the magic value.
    function isAccepted(address signer, bytes32 digest, bytes calldata signature, uint256 gasLimit)
        internal
        view
        returns (bool)
    {
        if (signer.code.length == 0) return false;
        bytes memory data = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        bool ok;
        bytes32 answer;
        // Assembly because Solidity would copy all that the contract returns, however long.
        assembly ("memory-safe") {
            ok := staticcall(gasLimit, signer, add(data, 0x20), mload(data), 0x00, 0x20)
            ok := and(ok, gt(returndatasize(), 0x1f))
            answer := mload(0x00)
        }
        return ok && answer == bytes32(IERC1271.isValidSignature.selector);
    }

    /// @notice Finds who signed.
    /// @param digest EIP-712 digest of the message.
    /// @param signature 65 or 64 bytes.
    /// @return signer 0 when the signature is malformed, has a high `s` or recovers to nobody.
    function signerOf(bytes32 digest, bytes calldata signature) internal pure returns (address signer) {
        (uint8 v, bytes32 r, bytes32 s) = ECDSA.parseCalldata(signature);
        (signer,,) = ECDSA.tryRecover(digest, v, r, s);
    }

    /// @notice Finds who signed, in the form of EIP-2098.
    /// @param digest EIP-712 digest of the message.
    /// @param r First half of the signature.
    /// @param vs Second half, the parity in its top bit.
    /// @return signer 0 when `s` is high or the signature recovers to nobody.
    function signerOf(bytes32 digest, bytes32 r, bytes32 vs) internal pure returns (address signer) {
        (signer,,) = ECDSA.tryRecover(digest, r, vs);
    }

    /// @notice Finds who signed when 32-byte words may follow the signature.
    /// @param digest EIP-712 digest of the message.
    /// @param signature 65 or 64 bytes, then any number of words.
    /// @return signer As in `signerOf`.
    /// @return rest The words.
    function split(bytes32 digest, bytes calldata signature)
        internal
        pure
        returns (address signer, bytes calldata rest)
    {
        uint256 length = signature.length % _WORD == 0 ? _SHORT_BYTES : _LONG_BYTES;
        if (signature.length < length) return (address(0), signature[0:0]);
        return (signerOf(digest, signature[:length]), signature[length:]);
    }

    /// @notice Whether a node is on a key's list.
    /// @param root Merkle root over `keccak256(keccak256(abi.encode(nodeId)))`, pairs sorted, as OpenZeppelin's.
    /// @param nodeId Node.
    /// @param proof Siblings from leaf to root, 32 bytes each.
    /// @return Whether the proof leads to the root.
    function isListed(bytes32 root, uint32 nodeId, bytes calldata proof) internal pure returns (bool) {
        bytes32 node = keccak256(bytes.concat(keccak256(abi.encode(nodeId))));
        for (uint256 i = 0; i + _WORD <= proof.length; i += _WORD) {
            node = Hashes.commutativeKeccak256(node, bytes32(proof[i:]));
        }
        return node == root;
    }
}
