// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IEscrow} from "./../../contracts/interfaces/IEscrow.sol";
import {Messages, VoucherBatch} from "./../../contracts/types/Messages.sol";
import {Session} from "./../../contracts/types/Sessions.sol";
import {Rules} from "./support/Rules.sol";

/// @title Packed vouchers under one signature, sent by anyone, signed by anyone, at any time
/// @notice `Rules` is what `SettleProof` holds single vouchers against: a batch that follows it pays what they pay.
contract BatchProof is Rules {
    struct Packed {
        bytes24 shortId;
        uint32 throughSeq;
        uint64 amount;
    }

    struct Signed {
        bytes32 receiptsRoot;
        bytes32 r;
        bytes32 vs;
    }

    function check_ABatchFollowsTheRulesOfASingleVoucher(
        address caller,
        Packed calldata voucher,
        Signed calldata word,
        uint40 time
    ) external {
        vm.warp(time);
        (bytes memory batch, address key) = _batch(voucher, word);
        State memory before = _state(voucher.shortId, key);
        _assumeSound(before);
        if (!_settle(caller, batch, word)) return;

        State memory wanted = _after(before, caller, Numbers(voucher.throughSeq, voucher.amount), time);
        _assertState(_state(voucher.shortId, key), wanted);
    }

    function check_ABatchNeverPaysAboveTheDeposit(
        address caller,
        Packed calldata voucher,
        Signed calldata word,
        uint40 time
    ) external {
        vm.warp(time);
        (bytes memory batch, address key) = _batch(voucher, word);
        _assumeSound(_state(voucher.shortId, key));
        if (!_settle(caller, batch, word)) return;

        Session memory afterwards = escrow.session(voucher.shortId, key);
        assertTrue(_sound(afterwards, _claim(voucher.shortId)));
    }

    function check_ABatchByAnyoneButTheSettlerPaysNothing(
        address caller,
        Packed calldata voucher,
        Signed calldata word,
        uint40 time
    ) external {
        vm.warp(time);
        (bytes memory batch, address key) = _batch(voucher, word);
        State memory before = _state(voucher.shortId, key);
        (address settler,) = escrow.nodeAccount(before.session.nodeId);
        vm.assume(caller != settler);
        _settle(caller, batch, word);
        _assertState(_state(voucher.shortId, key), before);
    }

    function check_ABatchTouchesNoSessionOfAnotherKey(
        address caller,
        Packed calldata voucher,
        Signed calldata word,
        bytes24 otherId,
        address otherKey,
        uint40 time
    ) external {
        vm.warp(time);
        (bytes memory batch, address key) = _batch(voucher, word);
        vm.assume(otherKey != key || otherId != voucher.shortId);
        Session memory other = escrow.session(otherId, otherKey);
        _settle(caller, batch, word);
        assertTrue(_same(other, escrow.session(otherId, otherKey)));
    }

    function check_ABatchTouchesNoAccount(
        address caller,
        Packed calldata voucher,
        Signed calldata word,
        address buyer,
        uint40 time
    ) external {
        vm.warp(time);
        (bytes memory batch,) = _batch(voucher, word);
        uint256 account = escrow.accountOf(buyer);
        _settle(caller, batch, word);
        assertEq(escrow.accountOf(buyer), account);
    }

    /// @dev Two sessions without claims, of one node or of two.
    function _settle(address caller, bytes memory batch, Signed calldata word) private returns (bool) {
        return _by(caller, abi.encodeCall(IEscrow.settleBatch, (batch, word.receiptsRoot, word.r, word.vs)));
    }

    /// @dev `open` refuses key 0, so whoever recovers to nobody has no session: proven in `SessionProof`.
    function _batch(Packed calldata voucher, Signed calldata word)
        private
        view
        returns (bytes memory batch, address key)
    {
        batch = _packed(voucher);
        key = _signer(batch, word);
        vm.assume(escrow.session(voucher.shortId, address(0)).flags == 0);
    }

    function _packed(Packed calldata voucher) private pure returns (bytes memory) {
        return abi.encodePacked(voucher.shortId, voucher.throughSeq, voucher.amount);
    }

    function _signer(bytes memory batch, Signed calldata word) private view returns (address signer) {
        bytes32 structHash = Messages.hash(VoucherBatch(keccak256(batch), word.receiptsRoot));
        (signer,,) = ECDSA.tryRecover(_digest(structHash), word.r, word.vs);
    }
}
