// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title A buyer that is a contract, of whatever mood
contract Wallet is IERC1271 {
    enum Mood {
        Owner, // accepts what its owner signed
        AcceptAll,
        RefuseAll,
        Revert,
        RevertWithMagic, // the magic value, as the reason of a refusal
        BurnGas,
        Bomb, // answers far more than was asked for
        BombThatAccepts,
        Short, // the magic value, one byte short of a word
        Dirty, // the magic value, and more in the same word
        Nothing
    }

    /// @dev Nearly all that memory costs before the gas of one check is gone; copying it would cost as much again.
    uint256 private constant _BOMB_BYTES = 180_000;

    address private immutable _OWNER;
    Mood public mood;

    error Wallet_Angry();

    constructor(address owner) {
        _OWNER = owner;
    }

    function setMood(Mood next) external {
        mood = next;
    }

    function act(address target, bytes calldata data) external returns (bytes memory) {
        (bool ok, bytes memory result) = target.call(data);
        if (!ok) _return(result, result.length, true);
        return result;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view override returns (bytes4) {
        Mood now_ = mood;
        if (now_ == Mood.AcceptAll) return IERC1271.isValidSignature.selector;
        if (now_ == Mood.RefuseAll) return bytes4(0xffffffff);
        if (now_ != Mood.Owner) _misbehave(now_, IERC1271.isValidSignature.selector);
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        return signer == _OWNER ? IERC1271.isValidSignature.selector : bytes4(0);
    }

    function _misbehave(Mood now_, bytes4 magic) private pure {
        if (now_ == Mood.Revert) revert Wallet_Angry();
        if (now_ == Mood.RevertWithMagic) _return(abi.encode(magic), 32, true);
        if (now_ == Mood.BurnGas) while (true) {}
        if (now_ == Mood.Bomb) _return(abi.encode(0), _BOMB_BYTES, false);
        if (now_ == Mood.BombThatAccepts) _return(abi.encode(magic), _BOMB_BYTES, false);
        if (now_ == Mood.Short) _return(abi.encode(magic), 31, false);
        if (now_ == Mood.Dirty) _return(abi.encode(bytes32(magic) | bytes32(uint256(1))), 32, false);
        _return("", 0, false);
    }

    function _return(bytes memory data, uint256 length, bool isError) private pure {
        // Assembly because Solidity answers in the lengths of its types only.
        assembly ("memory-safe") {
            if isError { revert(add(data, 0x20), length) }
            return(add(data, 0x20), length)
        }
    }
}
