// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Session} from "../types/Sessions.sol";

/// @notice A whole `Session` as the word in which storage holds it.
type SessionWord is uint256;

using SessionWords for SessionWord global;

/// @title A session's slot, read once and written once
/// @notice Solidity reads and writes a packed struct field by field; `settle` pays for that once per session.
/// Fields come back as 256-bit numbers so that nothing is masked twice. `SessionWord.t.sol` holds it against `Session`.
library SessionWords {
    /// @notice Node and flags that no session has.
    SessionWord internal constant NONE = SessionWord.wrap(type(uint256).max);

    uint256 private constant _PAID_BIT = 64;
    uint256 private constant _THROUGH_SEQ_BIT = 128;
    uint256 private constant _NODE_ID_BIT = 160;
    uint256 private constant _FLAGS_BIT = 192;
    uint256 private constant _KEY_EPOCH_BIT = 200;
    uint256 private constant _EXPIRES_AT_BIT = 216;

    function store(Session storage session, SessionWord word) internal {
        // Assembly because there is no other way to write a struct's slot whole.
        assembly ("memory-safe") {
            sstore(session.slot, word)
        }
    }

    function load(Session storage session) internal view returns (SessionWord word) {
        // Assembly because there is no other way to read a struct's slot whole.
        assembly ("memory-safe") {
            word := sload(session.slot)
        }
    }

    function deposited(SessionWord word) internal pure returns (uint256) {
        return uint64(SessionWord.unwrap(word));
    }

    function paid(SessionWord word) internal pure returns (uint256) {
        return uint64(SessionWord.unwrap(word) >> _PAID_BIT);
    }

    function throughSeq(SessionWord word) internal pure returns (uint256) {
        return uint32(SessionWord.unwrap(word) >> _THROUGH_SEQ_BIT);
    }

    function nodeId(SessionWord word) internal pure returns (uint256) {
        return uint32(SessionWord.unwrap(word) >> _NODE_ID_BIT);
    }

    function expiresAt(SessionWord word) internal pure returns (uint256) {
        return SessionWord.unwrap(word) >> _EXPIRES_AT_BIT;
    }

    function flags(SessionWord word) internal pure returns (uint256) {
        return uint8(SessionWord.unwrap(word) >> _FLAGS_BIT);
    }

    /// @notice A session as it opens.
    /// @param amount Below 2^64.
    /// @param id Its node.
    /// @param end Unix seconds, below 2^40.
    /// @param epoch Its node's key epoch.
    /// @param bits Its flags.
    /// @return Nothing paid, nothing settled.
    function fresh(uint64 amount, uint32 id, uint48 end, uint16 epoch, uint8 bits)
        internal
        pure
        returns (SessionWord)
    {
        return SessionWord.wrap(
            uint256(amount) | (uint256(id) << _NODE_ID_BIT) | (uint256(end) << _EXPIRES_AT_BIT)
                | (uint256(epoch) << _KEY_EPOCH_BIT) | (uint256(bits) << _FLAGS_BIT)
        );
    }

    /// @notice Replaces the flags.
    /// @param word Session as it was.
    /// @param bits Its flags from now on.
    /// @return Session as it will be; no other field changes.
    function flagged(SessionWord word, uint8 bits) internal pure returns (SessionWord) {
        uint256 changed = flags(word) ^ bits;
        return SessionWord.wrap(SessionWord.unwrap(word) ^ (changed << _FLAGS_BIT));
    }

    /// @notice Replaces what a settlement changes.
    /// @param word Session as it was.
    /// @param newPaid Below 2^64.
    /// @param newSeq Below 2^32.
    /// @return Session as it will be; no other field changes.
    function advanced(SessionWord word, uint256 newPaid, uint256 newSeq) internal pure returns (SessionWord) {
        uint256 raw = SessionWord.unwrap(word);
        uint256 before = (raw >> _PAID_BIT) & type(uint96).max;
        return SessionWord.wrap(raw ^ ((before ^ newPaid ^ (newSeq << 64)) << _PAID_BIT));
    }
}
