// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";
import {SessionWord, SessionWords} from "../../../contracts/libraries/SessionWord.sol";
import {Session} from "../../../contracts/types/Sessions.sol";

contract SessionWordTest is Test {
    Session private _stored;

    function testFuzz_WordReadsTheFieldsOfTheStruct(Session memory expected) public {
        _stored = expected;
        SessionWord word = SessionWords.load(_stored);
        assertEq(word.deposited(), expected.deposited);
        assertEq(word.paid(), expected.paid);
        assertEq(word.throughSeq(), expected.throughSeq);
        assertEq(word.nodeId(), expected.nodeId);
        assertEq(word.expiresAt(), expected.expiresAt);
        assertEq(word.flags(), expected.flags);
    }

    function testFuzz_AdvancedReplacesTwoFieldsAndKeepsTheOthers(Session memory start, uint64 paid, uint32 seq) public {
        _stored = start;
        SessionWords.store(_stored, SessionWords.load(_stored).advanced(paid, seq));
        (start.paid, start.throughSeq) = (paid, seq);
        assertEq(abi.encode(_stored), abi.encode(start));
    }

    function testFuzz_FlaggedReplacesTheFlagsAndKeepsTheOthers(Session memory start, uint8 flags) public {
        _stored = start;
        SessionWords.store(_stored, SessionWords.load(_stored).flagged(flags));
        start.flags = flags;
        assertEq(abi.encode(_stored), abi.encode(start));
    }

    function testFuzz_FreshHasNothingPaidAndNothingSettled(Session memory wanted) public {
        (wanted.paid, wanted.throughSeq) = (0, 0);
        SessionWord word = SessionWords.fresh(
            wanted.deposited, wanted.nodeId, wanted.expiresAt, wanted.keyEpoch, wanted.flags
        );
        SessionWords.store(_stored, word);
        assertEq(abi.encode(_stored), abi.encode(wanted));
    }
}
