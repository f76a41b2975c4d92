// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IEscrow} from "./../../contracts/interfaces/IEscrow.sol";
import {Messages, Settlement, Voucher} from "./../../contracts/types/Messages.sol";
import {Session, SettleItem} from "./../../contracts/types/Sessions.sol";
import {Rules} from "./support/Rules.sol";

/// @title One voucher, sent by anyone, signed by anyone, at any time
contract SettleProof is Rules {
    function check_SettleFollowsEveryRuleAndNoOther(address caller, SettleItem calldata item, uint40 time) external {
        vm.warp(time);
        (State memory before, address key) = (_stateOf(item), _signer(item));
        _assumeSound(before);
        if (!_settle(caller, item)) return;

        State memory wanted = _after(before, caller, Numbers(item.throughSeq, item.amount), time);
        _assertState(_state(item.sessionId, key), wanted);
    }

    function check_SettleForWithoutTheSettlersWordChangesNothing(
        address caller,
        SettleItem calldata item,
        bytes32 r,
        bytes32 vs,
        uint40 time
    ) external {
        vm.warp(time);
        (State memory before, address key) = (_stateOf(item), _signer(item));
        _assumeSound(before);
        SettleItem[] memory items = _list(item);
        bytes32 structHash = Messages.hash(Settlement(keccak256(abi.encode(items))));
        (address by,,) = ECDSA.tryRecover(_digest(structHash), r, vs);
        (address settler,) = escrow.nodeAccount(before.session.nodeId);
        vm.assume(settler != address(0)); // the registry refuses 0
        vm.assume(by != settler);
        _by(caller, abi.encodeCall(IEscrow.settleFor, (items, abi.encodePacked(r, vs))));

        _assertState(_state(item.sessionId, key), before);
    }

    function check_SettlePaysExactlyTheIncreaseAndNeverAboveTheDeposit(
        address caller,
        SettleItem calldata item,
        uint40 time
    ) external {
        vm.warp(time);
        Session memory before = _session(item);
        _assumeSound(_stateOf(item));
        uint256 earned = _earnings(before.nodeId);
        if (!_settle(caller, item)) return;

        Session memory afterwards = _session(item);
        assertTrue(_sound(afterwards, _claim(item.sessionId)));
        assertEq(_earnings(before.nodeId), earned + afterwards.paid - before.paid);
    }

    function check_SettleNeverLetsPaidOrSeqFall(address caller, SettleItem calldata item, uint40 time) external {
        vm.warp(time);
        Session memory before = _session(item);
        _settle(caller, item);

        assertGe(_session(item).paid, before.paid);
        assertGe(_session(item).throughSeq, before.throughSeq);
    }

    function check_SettleChangesNothingElseButTheClaim(address caller, SettleItem calldata item, uint40 time)
        external
    {
        vm.warp(time);
        Session memory before = _session(item);
        vm.assume(_isKnown(before.flags));
        _settle(caller, item);

        Session memory afterwards = _session(item);
        assertEq(afterwards.flags & ~CLAIMED, before.flags & ~CLAIMED);
        (afterwards.paid, afterwards.throughSeq, afterwards.flags) = (before.paid, before.throughSeq, before.flags);
        assertTrue(_same(before, afterwards));
    }

    function check_SettleOfTheSameVoucherAgainChangesNothing(address caller, SettleItem calldata item, uint40 time)
        external
    {
        vm.warp(time);
        Session memory before = _session(item);
        _settle(caller, item);
        Session memory once = _session(item);
        uint256 earned = _earnings(before.nodeId);
        _settle(caller, item);

        assertTrue(_same(once, _session(item)));
        assertEq(_earnings(before.nodeId), earned);
    }

    function check_SettleByAnyoneButTheSettlerChangesNothing(address caller, SettleItem calldata item, uint40 time)
        external
    {
        vm.warp(time);
        Session memory before = _session(item);
        (address settler, uint96 earned) = escrow.nodeAccount(before.nodeId);
        vm.assume(caller != settler);
        _settle(caller, item);

        assertTrue(_same(before, _session(item)));
        assertEq(_earnings(before.nodeId), earned);
    }

    function check_SettleOfAnEndedSessionChangesNothing(address caller, SettleItem calldata item, uint40 time)
        external
    {
        vm.warp(time);
        Session memory before = _session(item);
        vm.assume(_isKnown(before.flags));
        vm.assume(before.flags & CLOSED != OPEN || time >= uint256(before.expiresAt) + GRACE);
        uint256 earned = _earnings(before.nodeId);
        _settle(caller, item);

        assertTrue(_same(before, _session(item)));
        assertEq(_earnings(before.nodeId), earned);
    }

    function check_SettleTouchesNoOtherSession(
        address caller,
        SettleItem calldata item,
        bytes32 otherId,
        address otherKey,
        uint40 time
    ) external {
        vm.warp(time);
        vm.assume(bytes24(otherId) != bytes24(item.sessionId) || otherKey != _signer(item));
        vm.assume(otherKey != address(0));
        _assumeNoSessionOfNobody(item);
        Session memory other = escrow.session(otherId, otherKey);
        _settle(caller, item);

        assertTrue(_same(other, escrow.session(otherId, otherKey)));
    }

    function check_SettleTouchesNoAccount(address caller, SettleItem calldata item, address buyer, uint40 time)
        external
    {
        vm.warp(time);
        uint256 account = escrow.accountOf(buyer);
        _settle(caller, item);
        assertEq(escrow.accountOf(buyer), account);
    }

    function _settle(address caller, SettleItem calldata item) private returns (bool) {
        return _by(caller, abi.encodeCall(IEscrow.settle, (_list(item))));
    }

    function _list(SettleItem calldata item) private pure returns (SettleItem[] memory items) {
        items = new SettleItem[](1);
        items[0] = item;
    }

    function _stateOf(SettleItem calldata item) private view returns (State memory) {
        _assumeNoSessionOfNobody(item);
        return _state(item.sessionId, _signer(item));
    }

    function _session(SettleItem calldata item) private view returns (Session memory) {
        _assumeNoSessionOfNobody(item);
        return escrow.session(item.sessionId, _signer(item));
    }

    /// @dev `open` refuses key 0: proven in `SessionProof`.
    function _assumeNoSessionOfNobody(SettleItem calldata item) private view {
        vm.assume(escrow.session(item.sessionId, address(0)).flags == 0);
    }

    function _signer(SettleItem calldata item) private view returns (address signer) {
        Voucher memory voucher = Voucher(item.sessionId, item.throughSeq, item.amount, item.receiptsRoot);
        (signer,,) = ECDSA.tryRecover(_digest(Messages.hash(voucher)), item.r, item.vs);
    }
}
