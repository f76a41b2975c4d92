// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Test} from "forge-std/Test.sol";
import {Pricing} from "./../../contracts/libraries/Pricing.sol";
import {SessionWord, SessionWords} from "./../../contracts/libraries/SessionWord.sol";
import {Source, Till, Vouchers} from "./../../contracts/libraries/Vouchers.sol";
import {Messages, Offer, Order, Voucher} from "./../../contracts/types/Messages.sol";
import {Session, SettleItem} from "./../../contracts/types/Sessions.sol";

/// @title The price of any job under any offer
contract PricingProof is Test {
    function check_PriceIsNeverAboveTheOrder(
        Offer calldata offer,
        Order calldata order,
        uint64 unitsIn,
        uint64 unitsOut,
        uint64 finishedAtMs,
        uint8 status
    ) external pure {
        assertLe(Pricing.priceDown(offer, order, unitsIn, unitsOut, finishedAtMs, status), order.maxAmount);
    }

    function check_PriceIsZeroPastTheDeadlineAndForAFailedJob(
        Offer calldata offer,
        Order calldata order,
        uint64 unitsIn,
        uint64 unitsOut,
        uint64 finishedAtMs,
        uint8 status
    ) external pure {
        vm.assume(finishedAtMs > order.deadlineMs || status == 0);
        assertEq(Pricing.priceDown(offer, order, unitsIn, unitsOut, finishedAtMs, status), 0);
    }

    /// @dev The division of the machine is the rounding.
    function check_PriceOfAJobInTimeIsTheFormulaRoundedDown(
        Offer calldata offer,
        Order calldata order,
        uint64 unitsIn,
        uint64 unitsOut,
        uint64 finishedAtMs
    ) external pure {
        vm.assume(finishedAtMs <= order.deadlineMs && finishedAtMs <= order.issuedAtMs);
        uint256 perMillion = uint256(unitsIn) * offer.priceInPerMillion + uint256(unitsOut) * offer.priceOutPerMillion;
        uint256 expected = offer.pricePerJob + perMillion / 1_000_000;
        if (expected > order.maxAmount) expected = order.maxAmount;
        assertEq(Pricing.priceDown(offer, order, unitsIn, unitsOut, finishedAtMs, 1), expected);
    }

    function check_BeingLateNeverCostsMore(
        Offer memory offer,
        Order calldata order,
        uint64 unitsIn,
        uint64 unitsOut,
        uint64 finishedAtMs
    ) external pure {
        uint256 price = Pricing.priceDown(offer, order, unitsIn, unitsOut, finishedAtMs, 1);
        offer.maxLatencyMs = 0;
        assertLe(price, Pricing.priceDown(offer, order, unitsIn, unitsOut, finishedAtMs, 1));
    }
}

/// @title A session's slot as one word
contract SessionWordProof is Test {
    Session private _stored;

    function check_WordReadsTheFieldsOfTheStruct(Session calldata any) external {
        _stored = any;
        SessionWord word = SessionWords.load(_stored);
        assertEq(word.deposited(), any.deposited);
        assertEq(word.paid(), any.paid);
        assertEq(word.throughSeq(), any.throughSeq);
        assertEq(word.nodeId(), any.nodeId);
        assertEq(word.expiresAt(), any.expiresAt);
        assertEq(word.flags(), any.flags);
    }

    function check_AdvancedReplacesTwoFieldsAndKeepsTheOthers(Session calldata any, uint64 paid, uint32 seq) external {
        _stored = any;
        SessionWords.store(_stored, SessionWords.load(_stored).advanced(paid, seq));
        Session memory expected = any;
        (expected.paid, expected.throughSeq) = (paid, seq);
        assertEq(keccak256(abi.encode(_stored)), keccak256(abi.encode(expected)));
    }

    function check_FlaggedReplacesTheFlagsAndKeepsTheOthers(Session calldata any, uint8 bits) external {
        _stored = any;
        SessionWords.store(_stored, SessionWords.load(_stored).flagged(bits));
        Session memory expected = any;
        expected.flags = bits;
        assertEq(keccak256(abi.encode(_stored)), keccak256(abi.encode(expected)));
    }

    function check_FreshIsTheStructFieldByField(uint64 amount, uint32 id, uint40 end, uint16 epoch, uint8 bits)
        external
    {
        SessionWords.store(_stored, SessionWords.fresh(amount, id, end, epoch, bits));
        Session memory expected = Session(amount, 0, 0, id, bits, epoch, end);
        assertEq(keccak256(abi.encode(_stored)), keccak256(abi.encode(expected)));
    }
}

/// @title Whom the hot loop takes for the signer, against the plain way
contract VouchersProof is Test {
    // No session exists here, so the loop stops at its first item and says who signed it.
    mapping(address key => mapping(bytes24 shortId => Session value)) private _sessions;
    mapping(uint32 nodeId => uint256 value) private _nodes;

    function check_SignerIsWhomOpenZeppelinRecovers(SettleItem calldata item, bytes32 domain) external {
        bytes32 structHash =
            Messages.hash(Voucher(item.sessionId, item.throughSeq, item.amount, item.receiptsRoot));
        bytes32 digest = MessageHashUtils.toTypedDataHash(domain, structHash);
        (address expected,,) = ECDSA.tryRecover(digest, item.r, item.vs);
        Source memory source;
        source.domain = domain;
        uint256 at;
        assembly ("memory-safe") {
            at := item
            mstore(add(source, 0x20), _sessions.slot)
            mstore(add(source, 0x40), _nodes.slot)
        }
        Till memory till;
        till.plain = SessionWords.NONE;
        (uint256 end, address signer) = Vouchers.settleRun(at, at + Vouchers.ITEM_BYTES, source, till);
        assertEq(end, at);
        assertEq(signer, expected);
    }

    function check_PackedVouchersAreReadAsTheyWerePacked(bytes24 shortId, uint32 seq, uint64 amount) external view {
        this.assertReads(abi.encodePacked(shortId, seq, amount), shortId, seq, amount);
    }

    function assertReads(bytes calldata batch, bytes24 shortId, uint32 seq, uint64 amount) external pure {
        (uint256 at, uint256 last) = Vouchers.range(batch);
        assertEq(last - at, Vouchers.PACKED_BYTES);
        (bytes24 readId, uint256 readSeq, uint256 readAmount) = Vouchers.voucherAt(at);
        assertEq(readId, shortId);
        assertEq(readSeq, seq);
        assertEq(readAmount, amount);
    }
}
