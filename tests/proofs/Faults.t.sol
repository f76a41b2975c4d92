// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Proof as FaultProven} from "./../../contracts/types/Cases.sol";
import {CourtProof} from "./support/CourtProof.sol";

/// @title What a proven fault pays
contract FaultProof is CourtProof {
    function check_AnAwardIsPaidOnceAndToTheBuyer(address caller, bytes32 orderHash) external {
        FaultProven memory proof = court.proofOf(orderHash);
        vm.assume(proof.buyer.code.length == 0);
        uint256 wallet = token.balanceOf(proof.buyer);
        vm.prank(caller);
        court.payAward(orderHash);
        assertEq(token.balanceOf(proof.buyer), wallet + proof.award);
        assertEq(court.proofOf(orderHash).award, 0);
        vm.prank(caller);
        court.payAward(orderHash);
        assertEq(token.balanceOf(proof.buyer), wallet + proof.award);
    }

    function check_AnAwardOfAContractIsOwedOnceAndToIt(address caller, bytes32 orderHash) external {
        FaultProven memory proof = court.proofOf(orderHash);
        vm.assume(proof.buyer == address(token)); // a contract like any other
        (uint256 wallet, uint256 owed) = (token.balanceOf(proof.buyer), _balance(proof.buyer));
        uint256 held = token.balanceOf(COURT);
        vm.prank(caller);
        court.payAward(orderHash);
        vm.prank(caller);
        court.payAward(orderHash);
        assertEq(token.balanceOf(proof.buyer), wallet);
        assertEq(_balance(proof.buyer), owed + proof.award);
        assertEq(token.balanceOf(COURT), held + proof.award);
    }
}
