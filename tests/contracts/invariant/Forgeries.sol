// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {IReceiver} from "../../../contracts/interfaces/IReceiver.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Evidence} from "../../../contracts/types/Cases.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {
    Close,
    KeyGrant,
    Messages,
    Open,
    Settlement,
    TopUp,
    VoucherBatch
} from "../../../contracts/types/Messages.sol";
import {Payment} from "../../../contracts/types/Quotes.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {TooLate} from "./TooLate.sol";

/// @title Messages that nobody who may sign them signed, and calls that nobody who may make them makes
abstract contract Forgeries is TooLate {
    uint256 internal constant KINDS = 66;

    /// @return to Whom to call.
    /// @return data What with.
    /// @return who Caller.
    /// @return isSkip Whether it is passed over instead of refused.
    function _forged(uint256 index, uint256 seed)
        internal
        returns (address to, bytes memory data, uint256 who, bool isSkip)
    {
        uint256 kind = _roll(seed, 1) % KINDS;
        Ghost storage ghost = ghosts[index];
        who = STRANGER;
        if (kind < 7) return (address(escrow), _forbidden(ghost, kind), who, false);
        if (kind < 14) return (address(registry), _forbiddenAtRegistry(ghost, kind), who, false);
        if (kind < 20) return (address(escrow), _forgedSession(ghost, kind), who, false);
        if (kind < 24) {
            data = _forgedSettlement(ghost, kind);
            return (address(escrow), data, settlerOf[ghost.node], true);
        }
        if (kind < 26) return (address(escrow), _forgedGrant(ghost, kind), who, kind == 25);
        if (kind < 30) {
            index = _claimable(seed);
            data = _forgedClaim(index, kind);
            return (address(escrow), data, kind == 26 ? who : settlerOf[ghosts[index].node], false);
        }
        if (kind < 36) return (address(court), _forgedEvidence(_claimedJob(seed), kind), who, false);
        if (kind < 53) return _untimely(index, kind - 36, seed);
        if (kind < 57) (to, data) = _forbiddenAtReceiver(kind, seed);
        else (to, data) = (address(till), _forgedPayment(kind, seed));
    }

    function _untimely(uint256 index, uint256 kind, uint256 seed)
        private
        returns (address to, bytes memory data, uint256 who, bool isSkip)
    {
        to = kind < 12 ? address(escrow) : address(court);
        if (kind < 10 && _isReceiver(ghosts[index].buyer)) index = _openFresh(seed);
        if (kind < 10) (data, who) = _wrongTerms(ghosts[index], kind);
        else if (kind < 12) (data, who) = _lateForSession(kind - 10, seed);
        else if (kind < 15) (data, who) = _lateForJob(kind - 12, seed);
        else (data, who) = _lateForCase(kind - 15, seed);
        if (who == NOBODY) return (address(escrow), _forbidden(ghosts[index], 0), STRANGER, false);
        isSkip = false;
    }

    /* CALLS OF OTHERS */

    function _forbidden(Ghost storage ghost, uint256 kind) private view returns (bytes memory) {
        address key_ = people[ghost.key].addr;
        uint64 amount = ghost.deposited;
        if (kind == 0) return abi.encodeCall(IEscrow.withdraw, (1, people[STRANGER].addr));
        if (kind == 1) return abi.encodeCall(IEscrow.setSettler, (ghost.node, people[STRANGER].addr));
        if (kind == 2) return abi.encodeCall(IEscrow.setNode, (ghost.node, people[STRANGER].addr, 9, true));
        if (kind == 3) return abi.encodeCall(IEscrow.setServing, (_one(uint32(ghost.node)), false));
        if (kind == 4) return abi.encodeCall(IEscrow.hold, (ghost.id, key_, ROOT, 1, new bytes32[](1)));
        if (kind == 5) return abi.encodeCall(IEscrow.resolve, (ghost.id, key_, people[STRANGER].addr, amount, false));
        return abi.encodeCall(IEscrow.announceFee, (0));
    }

    function _forbiddenAtRegistry(Ghost storage ghost, uint256 kind) private view returns (bytes memory) {
        address owner = people[_ownerOf(ghost.node)].addr;
        address who = people[STRANGER].addr;
        if (kind == 7) return abi.encodeCall(INodeRegistry.lock, (owner, 1));
        if (kind == 8) return abi.encodeCall(INodeRegistry.unlock, (owner, 0));
        if (kind == 9) return abi.encodeCall(INodeRegistry.slash, (owner, 1));
        if (kind == 10) return abi.encodeCall(INodeRegistry.release, (who, 0));
        if (kind == 11) return abi.encodeCall(INodeRegistry.setSettler, (ghost.node, who));
        if (kind == 12) return abi.encodeCall(INodeRegistry.rotateNodeKey, (ghost.node, who, 0));
        return abi.encodeCall(INodeRegistry.withdrawStake, ());
    }

    /* SESSIONS */

    function _forgedSession(Ghost storage ghost, uint256 kind) private view returns (bytes memory) {
        Open memory terms = _termsOf(ghost);
        uint256 liar = people[STRANGER].secret;
        uint128 total = uint128(ghost.deposited) + 1;
        if (kind == 14) {
            bytes32 structHash = Messages.hash(TopUp(ghost.id, total));
            return abi.encodeCall(IEscrow.topUp, (terms, total, _signed(liar, structHash)));
        }
        if (kind == 15) {
            uint256 later = _nodeSecret(ghost.node, uint256(ghost.epoch) + 1);
            return abi.encodeCall(IEscrow.close, (terms, 0, _signed(later, Messages.hash(Close(ghost.id, 0)))));
        }
        if (kind == 16) return abi.encodeCall(IEscrow.close, (terms, 0, ""));
        if (kind == 17) return abi.encodeCall(IEscrow.expire, (_one(terms)));
        terms.salt = keccak256(abi.encode("forged", calls));
        (terms.openBefore, terms.amount) = (uint48(time + 1), 1);
        if (kind == 18) return abi.encodeCall(IEscrow.openOneSession, (terms, ""));
        return abi.encodeCall(IEscrow.openOneSession, (terms, _signed(liar, Messages.hash(terms))));
    }

    /* VOUCHERS */

    /// @dev By another key, or in the name of somebody who is not the settler.
    function _forgedSettlement(Ghost storage ghost, uint256 kind) private view returns (bytes memory) {
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = SettleItem(ghost.id, ghost.throughSeq + 1000, ghost.deposited, ROOT, 0, 0);
        uint256 other = FIRST_KEY + (ghost.key - FIRST_KEY + 1) % KEYS;
        (items[0].r, items[0].vs) = _signedVoucher(kind == 20 ? other : uint256(ghost.key), items[0]);
        if (kind == 20) return abi.encodeCall(IEscrow.settle, (items));
        if (kind == 21) {
            bytes32 structHash = Messages.hash(Settlement(keccak256(abi.encode(items))));
            return abi.encodeCall(IEscrow.settleFor, (items, _signed(people[ghost.key].secret, structHash)));
        }
        if (kind == 22) {
            ++items[0].throughSeq; // not what was signed
            return abi.encodeCall(IEscrow.settle, (items));
        }
        bytes memory packed = abi.encodePacked(bytes24(ghost.id), items[0].throughSeq, uint64(items[0].amount));
        (bytes32 r, bytes32 vs) =
            _signedShort(people[other].secret, Messages.hash(VoucherBatch(keccak256(packed), ROOT)));
        return abi.encodeCall(IEscrow.settleBatch, (packed, ROOT, r, vs));
    }

    /* KEYS */

    /// @dev By the key itself; or by the buyer, but before the newest or before a revocation.
    function _forgedGrant(Ghost storage ghost, uint256 kind) private view returns (bytes memory) {
        KeyGrant memory grant = _grantOf(ghost.buyer, ghost.key);
        (grant.perSession, grant.perDay, grant.total) = (type(uint64).max, type(uint64).max, type(uint64).max);
        (grant.expiresAt, grant.nodesRoot) = (type(uint48).max, 0);
        if (kind == 24) ++grant.nonce;
        uint256 signer = kind == 24 || _isReceiver(ghost.buyer) ? ghost.key : ghost.buyer;
        return abi.encodeCall(IEscrow.setKeyBySig, (grant, _signed(people[signer].secret, Messages.hash(grant))));
    }

    /* CLAIMS AND CASES */

    /// @dev By a stranger; of an order that the key did not sign; of a receipt of another epoch; of too much.
    function _forgedClaim(uint256 index, uint256 kind) private returns (bytes memory) {
        Ghost storage ghost = ghosts[index];
        uint8 fault = kind != 29 ? 0 : calls % 2 == 0 ? ABOVE_MAXIMUM : LATE;
        Job storage job = jobs[_pushJob(index, ghost.throughSeq + 1, 1, fault)];
        SignedReceipt[] memory receipts = new SignedReceipt[](1);
        receipts[0].order = _orderOf(job);
        bytes32 orderHash = _digestOf(Messages.hash(receipts[0].order));
        receipts[0].receipt = _receiptOf(job, orderHash, 0);
        uint256 signer = kind == 27 ? people[STRANGER].secret : people[ghost.key].secret;
        receipts[0].orderSignature = _signedDigest(signer, orderHash);
        uint256 secret = kind == 28 ? _nodeSecret(ghost.node, uint256(ghost.epoch) + 1) : _secretOf(job);
        receipts[0].receiptSignature = _signed(secret, Messages.hash(receipts[0].receipt));
        return abi.encodeCall(IEscrow.claim, (_termsOf(ghost), receipts));
    }

    /// @dev One receipt twice; a second receipt by somebody else; a stranger's demand, challenge of what is claimed, or
    /// answer; a verdict without a seat.
    function _forgedEvidence(uint256 number, uint256 kind) private view returns (bytes memory) {
        Evidence memory evidence = _evidenceOf(number, true);
        if (kind == 30) {
            return abi.encodeCall(ICourt.proveTwoReceipts, (evidence, evidence.receipt, evidence.signature));
        }
        if (kind == 31) {
            Evidence memory other = _evidenceOf(number, true);
            ++other.receipt.amount;
            bytes memory signature = _signed(people[STRANGER].secret, Messages.hash(other.receipt));
            return abi.encodeCall(ICourt.proveTwoReceipts, (evidence, other.receipt, signature));
        }
        if (kind == 32 && calls % 2 == 0) return abi.encodeCall(ICourt.demand, (evidence));
        if (kind == 32) return abi.encodeCall(ICourt.challenge, (evidence, ROOT));
        bytes32 id = disputes.length == 0 ? _receiptHash(jobs[number]) : disputes[calls % disputes.length].id;
        if (kind == 33) return abi.encodeCall(ICourt.answer, (id, "forged"));
        if (kind == 34) return abi.encodeCall(ICourt.refer, (id, ROOT));
        return abi.encodeCall(ICourt.commit, (id, ROOT));
    }

    /* PAYMENTS */

    function _forbiddenAtReceiver(uint256 kind, uint256 seed) private returns (address to, bytes memory data) {
        uint256 number = _paidQuote(seed);
        to = quotes[number].receiver;
        Ghost storage ghost = ghosts[quotes[number].session];
        address who = people[STRANGER].addr;
        if (kind == 53) data = abi.encodeCall(IReceiver.open, (_termsOf(ghost)));
        else if (kind == 54) data = abi.encodeCall(IReceiver.withdraw, (who));
        else if (kind == 55) data = abi.encodeCall(IReceiver.takeAwards, (who));
        else data = abi.encodeCall(IReceiver.giveBack, (who, 0));
    }

    /// @dev Signed by somebody else; by another payer than the quote's; in the name of whoever voided its own, with the
    /// key's word for another; without the key's word; back too early, of what was not sent, of what nobody paid.
    function _forgedPayment(uint256 kind, uint256 seed) private returns (bytes memory) {
        uint256 number = kind == 58 ? _paidQuote(seed) : _openQuote(seed);
        if (kind == 59) return abi.encodeCall(ITill.refund, (_quoteOf(number)));
        if (kind == 60) return abi.encodeCall(ITill.takeAwards, (_quoteOf(number)));
        uint256 from = _roll(seed, 98) % THIEF;
        if (quotes[number].payer == from + 1) from = (from + 1) % THIEF;
        uint256 transfer = _sign(number, from, quotes[number].amount);
        uint256 liar = people[STRANGER].secret;
        Payment memory payment = _paymentBy(kind == 57 ? liar : people[from].secret, transfer);
        if (kind < 59) return abi.encodeCall(ITill.pay, (_quoteOf(number), payment));
        if (kind != 61) _send(transfer);
        bytes memory word = kind == 62 || kind == 63 ? _wordBy(liar, transfer) : _wordFor(transfer);
        if (kind == 64) {
            transfer = _sign(number, (from + 1) % THIEF, quotes[number].amount);
            _void(transfer);
            payment = _paymentOf(transfer);
        }
        if (kind == 62 || kind == 64) return abi.encodeCall(ITill.payPushed, (_quoteOf(number), payment, word));
        if (kind < 65) _travelTo(quotes[number].payBefore);
        return abi.encodeCall(ITill.recover, (_quoteOf(number), payment, word));
    }
}
